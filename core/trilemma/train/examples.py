"""The examples of a step, as an objective is given them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.update import MODEL, Step
from trilemma.train.conditions import ConditionSource


@dataclass(frozen=True)
class Examples:
    """Data on a device: x₀ [B, C, H, W], the conditions that the model takes, and the values that the set has."""

    x0: Tensor
    cond: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def step(self, modules: Mapping[str, nn.Module], generator: torch.Generator, number: int = 0) -> Step:
        """Returns the step of these examples, the model and the parts beside it being among `modules`."""
        model = modules[MODEL]
        beside = {name: module for name, module in modules.items() if name != MODEL}
        return Step(model, model, beside, self.x0, self.cond, self.values, generator, number)


class Reader:
    """Reads examples of a data set for a model.

    Args:
        dataset: the data set.
        model: the model, whose conditions are taken.
        device: where the examples go.
        provided: names of conditions that the objective makes itself.
        images: whether x₀ are the images of a latent model, and not their codes.

    Raises:
        UsageError: for a condition of the model that the data set does not have.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: nn.Module,
        device: torch.device,
        provided: Collection[str] = (),
        images: bool = False,
    ) -> None:
        self.dataset, self._device = dataset, device
        self._conditions = (
            ConditionSource(model, dataset, device, provided) if isinstance(model, Denoiser) else None
        )
        self._view = model.view if isinstance(model, Denoiser) and not images else None
        # Of x₀.
        self.shape = tuple(model.shape if isinstance(model, Denoiser) and not images else dataset.shape)

    def read(self, indices: Tensor) -> Examples:
        """Returns the examples at indices [B]."""
        x0, values = self.dataset.batch(indices)
        cond = {} if self._conditions is None else self._conditions.take(indices)
        x0 = x0.to(self._device)
        return Examples(x0 if self._view is None else self._view.data(x0), cond, values)
