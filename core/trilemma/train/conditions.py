"""Conditions in training: the values of a data set as a network is told them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.column import ClassColumn, Column
from trilemma.interfaces.condition import ClassCondition, Condition
from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.denoiser import Denoiser


class ConditionSource:
    """The conditions of a network, taken from the columns of a data set that have their names.

    Args:
        denoiser: the network, for the conditions that it takes.
        dataset: with a column for each of them; the others are not read.
        device: that the tensors are needed on.

    Raises:
        UsageError: for a condition that the data set does not have, or has of another kind or number of classes.
    """

    def __init__(self, denoiser: Denoiser, dataset: Dataset, device: torch.device) -> None:
        self.dataset, self._device = dataset, device
        columns = dataset.columns
        self._columns = {
            name: _matching(condition, columns) for name, condition in denoiser.conditions.items()
        }

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """Returns the tensors that the network is told for the examples at indices [B]."""
        return {name: column.at(indices).to(self._device) for name, column in self._columns.items()}


def _matching(condition: Condition, columns: Mapping[str, Column]) -> Column:
    """The column of a condition."""
    found = columns.get(condition.name)
    if isinstance(condition, ClassCondition):
        classes = len(found.classes) if isinstance(found, ClassColumn) else 0
        if condition.size != classes:
            raise UsageError(
                f"recipe: the denoiser has {condition.size} classes and the data set {classes}; "
                f"set denoiser.options.classes={classes}"
            )
    if found is None:
        raise UsageError(
            f"recipe: the denoiser takes the condition {condition.name!r}, which the data set does not give; "
            f"it gives {', '.join(columns) or 'none'}: choose another network or data set"
        )
    return found
