"""What a training step minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.denoiser import Denoiser


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
        """The scalar loss on data x₀ [B, C, H, W] with conditions [B].

        Args:
            network: what is called: the denoiser itself, or its wrapper in a distributed run.
            denoiser: the denoiser, for its process, parameterization and conditions.
            generator: CPU generator that every random draw comes from, so that a resumed run repeats it.
        """
