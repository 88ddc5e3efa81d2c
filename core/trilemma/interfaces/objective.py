"""Training objectives: the loss that a training step minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser


class Objective(ABC):
    """A training loss of a denoiser on a batch of data."""

    @abstractmethod
    def loss(
        self,
        network: torch.nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Returns the scalar loss on data x₀ [B, C, H, W] with conditions [B].

        Args:
            network: the module to call: the denoiser itself, or its wrapper in a distributed run.
            denoiser: the denoiser, for its process, parameterization and conditions.
            generator: CPU generator that every random draw comes from, so that a resumed run repeats it.
        """


def check_drop(name: str, probability: float) -> None:
    """Refuses a drop of the objective `name` that is no probability."""
    if not 0 <= probability <= 1:
        raise UsageError(f"{name}: drop={probability} is no probability; expected a number from 0 to 1")


def drop_conditions(
    denoiser: Denoiser, cond: Mapping[str, Tensor], probability: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Returns the conditions [B]; all conditions of an example are the null ones with this probability.

    Raises:
        UsageError: for a condition without a null, where the probability is positive.

    References:
        Ho & Salimans, Classifier-Free Diffusion Guidance, arXiv:2207.12598.
    """
    if not probability or not cond:
        return dict(cond)
    batch = len(next(iter(cond.values())))
    dropped = torch.rand(batch, generator=generator) < probability
    result = {}
    for name, value in cond.items():
        null = denoiser.conditions[name].null
        if null is None:
            raise UsageError(
                f"drop={probability} needs a null class, but condition {name!r} has none; set drop = 0"
            )
        result[name] = torch.where(dropped.to(value.device), null, value)
    return result
