"""Conditions in training: the values of a data set as a network is told them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.column import ClassColumn, Column, ImageColumn
from trilemma.interfaces.condition import LABEL, ClassCondition, Condition, TextCondition
from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.features import Features
from trilemma.train.encodings import stored

Take = Callable[[Tensor], dict[str, Tensor]]


class ConditionSource:
    """The conditions of a network, taken from the columns of a data set that have their names.

    All values but images are prepared once, here: a text is encoded once, however many examples have it, and its
    embeddings are kept on disk for other runs. Images are read and prepared when they are taken. A missing value is
    the null.

    Args:
        network: whose conditions they are.
        dataset: with a column for each of them; the others are not read.
        device: that the tensors are needed on.
        provided: names of conditions that the objective makes itself, which are left out.

    Raises:
        UsageError: for a condition that the data set does not have, or has of another kind or number of classes, for a
            value that is none of it, and for a missing value where there is no null.
    """

    def __init__(
        self,
        network: Denoiser | Features,
        dataset: Dataset,
        device: torch.device,
        provided: Collection[str] = (),
    ) -> None:
        self.dataset, self._device = dataset, device
        columns = dataset.columns
        read = [entry for name, entry in network.conditions.items() if name not in provided]
        self._takes = [_take(entry, _matching(entry, columns)) for entry in read]

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """Returns the tensors that the network is told for the examples at indices [B]."""
        return {name: found.to(self._device) for take in self._takes for name, found in take(indices).items()}


def _take(condition: Condition, column: Column) -> Take:
    """The tensors of a condition for the examples at some indices."""
    if isinstance(column, ImageColumn):
        return lambda rows: condition.prepare(column.at(rows)).take(torch.arange(len(rows)))
    distinct, which = _distinct(column)
    try:
        kept = stored(condition) if isinstance(condition, TextCondition) else condition
        prepared = kept.prepare(distinct)
    except UsageError as error:
        raise UsageError(f"recipe: a value of the data set does not fit the network: {error}") from error
    return lambda rows: prepared.take(which[rows])


def _distinct(column: Column) -> tuple[list[Any], Tensor]:
    """The values of a column that differ, None where one is missing, and which of them each example has [N]."""
    values = column.at(torch.arange(len(column)))
    if isinstance(values, Tensor):
        found, which = values.unique(return_inverse=True)
        missing = torch.zeros(len(found), dtype=torch.bool).index_put_((which,), column.missing)
        return [
            None if lost else value for value, lost in zip(found.tolist(), missing.tolist(), strict=True)
        ], which
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return list(places), torch.tensor([places[value] for value in values], dtype=torch.int64)


def _matching(condition: Condition, columns: Mapping[str, Column]) -> Column:
    """The column of a condition."""
    name, found = condition.name, columns.get(condition.name)
    if isinstance(condition, ClassCondition) and (name == LABEL or isinstance(found, ClassColumn)):
        classes = len(found.classes) if isinstance(found, ClassColumn) else 0
        if condition.size != classes:
            which, cure = (
                ("", f"denoiser.options.classes={classes}")
                if name == LABEL
                else (f" of {name!r}", f"size = {classes}")
            )
            raise UsageError(
                f"recipe: the denoiser has {condition.size} classes{which} and the data set {classes}; set {cure}"
            )
    if found is None:
        raise UsageError(
            f"recipe: the denoiser takes the condition {name!r}, which the data set does not give; "
            f"it gives {', '.join(columns) or 'none'}: choose another network or data set"
        )
    if found.kind != condition.kind:
        raise UsageError(
            f"recipe: the denoiser takes the condition {name!r} as {condition.kind}, the data set gives it as "
            f"{found.kind}; choose another network or column"
        )
    return found
