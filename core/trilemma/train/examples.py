"""The examples of a step, as an objective is given them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.interfaces.data_view import AT_ONCE
from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.features import Features
from trilemma.interfaces.update import MODEL, Step
from trilemma.train.conditions import ConditionSource

# The most bytes of codes that are kept.
KEPT = 2**30


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
        model: the model, whose conditions are taken, where it has some.
        device: where the examples go.
        provided: names of conditions that the objective makes itself.
        images: whether x₀ are the images of a latent model, and not their codes.
        reads: examples that will be read; where they are as many as there are, or more, the codes of a latent model
            are made once, at the first read, as far as they take at most `KEPT` bytes.

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
        reads: int = 0,
    ) -> None:
        self.dataset, self._device = dataset, device
        self._conditions = (
            ConditionSource(model, dataset, device, provided)
            if isinstance(model, Denoiser | Features)
            else None
        )
        self._view = model.view if isinstance(model, Denoiser) and not images else None
        # Of x₀.
        self.shape = tuple(model.shape if isinstance(model, Denoiser) and not images else dataset.shape)
        latent = self._view is not None and not self._view.is_direct
        size = 4 * len(dataset) * math.prod(self.shape)
        self._keeps = latent and reads >= len(dataset) and size <= KEPT
        self._codes: Tensor | None = None

    def read(self, indices: Tensor) -> Examples:
        """Returns the examples at indices [B]."""
        cond = {} if self._conditions is None else self._conditions.take(indices)
        if self._keeps:
            return Examples(self._kept()[indices].to(self._device), cond, self.dataset.values(indices))
        x0, values = self.dataset.batch(indices)
        return Examples(self._data(x0), cond, values)

    def _data(self, images: Tensor) -> Tensor:
        x0 = images.to(self._device)
        return x0 if self._view is None else self._view.data(x0)

    def _kept(self) -> Tensor:
        """The codes of all examples, on the host, made in their order: a resumed run makes the same bits."""
        if self._codes is None:
            rows = torch.arange(len(self.dataset)).split(AT_ONCE)
            self._codes = torch.cat([self._data(self.dataset.batch(part)[0]).cpu() for part in rows])
        return self._codes
