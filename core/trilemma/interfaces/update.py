"""The updates of a training step: which parts learn, from which loss, how often, with which optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser

# The name of the part that is trained and written; the parts beside it have other names.
MODEL: Final = "model"

# A loss, or a loss and numbers for the log by name.
Loss = Tensor | tuple[Tensor, Mapping[str, Tensor | float]]


@dataclass(frozen=True)
class Update:
    """One update of a training step: parts that learn from one loss, through an optimizer of their own.

    Attributes:
        name: of the update; its losses are logged and its optimizer is set, in `[optimizer.NAME]`, under it.
        learns: names of the parts that learn, "model" being the one that is trained; no other receives gradients.
        every: steps from one such update to the next; it is made in those that it divides.
        optimizer: values that replace those of the recipe's `[optimizer]`, such as lr or betas.
        since: the first step in which it is made.

    Raises:
        ValueError: for a name that is no identifier, an update that nothing learns from, every < 1 or since < 0.
    """

    name: str
    learns: tuple[str, ...] = (MODEL,)
    every: int = 1
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    since: int = 0

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(
                f"the update {self.name!r} is named by no identifier; give letters, digits and _"
            )
        if isinstance(self.learns, str) or not self.learns:
            raise ValueError(
                f"update {self.name!r}: learns={self.learns!r} names no parts; give a tuple of names"
            )
        if self.every < 1:
            raise ValueError(
                f"update {self.name!r}: every={self.every!r} is no number of steps; give 1 or more"
            )
        if self.since < 0:
            raise ValueError(f"update {self.name!r}: since={self.since!r} is no step; give 0 or more")

    def due(self, step: int) -> bool:
        """Returns whether it is made in a step."""
        return step >= self.since and step % self.every == 0


@dataclass(frozen=True)
class Step:
    """Collects the data, networks and random draws that the loss of an update is made from.

    Attributes:
        model: the model that is trained.
        network: the module to call in its place: the model itself, or a wrapper of it.
        parts: the parts beside the model, by name.
        x0: data [B, C, H, W]; images, where the autoencoder of a latent model is one of the parts.
        cond: conditions that the model takes, as tensors by name.
        values: values that the data set has of the examples, by name, such as `class` int64 [B].
        generator: CPU generator that every random draw comes from; keyed by (seed, step, update).
        number: steps done before this one; 0 where no step is taken, as in a validation.
    """

    model: nn.Module
    network: nn.Module
    parts: Mapping[str, nn.Module]
    x0: Tensor
    cond: Mapping[str, Tensor]
    values: Mapping[str, Any]
    generator: torch.Generator
    number: int = 0

    @property
    def denoiser(self) -> Denoiser:
        """The model, as a denoiser.

        Raises:
            UsageError: where it is none.
        """
        if not isinstance(self.model, Denoiser):
            raise UsageError(
                f"this objective trains a denoiser, and the model is a {type(self.model).__name__}; choose another"
            )
        return self.model


def loss_and_scalars(found: Loss) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """Returns a loss and the numbers for the log that came with it."""
    return (found, {}) if isinstance(found, Tensor) else found
