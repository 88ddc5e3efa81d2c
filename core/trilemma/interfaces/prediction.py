"""The guided prediction of a model, as a sampler without a plan is given it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser


class Prediction(Protocol):
    """Maps (z, t) to x̂₀, ε̂, v̂ or the score of a model under guidance.

    Attributes:
        denoiser: the model; its process is the one that is sampled.
        network_dtype: dtype that the network computes in.
        evaluations: number of network evaluations that a sample has paid so far.
    """

    denoiser: Denoiser
    network_dtype: torch.dtype
    evaluations: int

    def __call__(
        self,
        z: Tensor,
        t: float | Tensor,
        parameterization: str = "x0",
        to: float | Tensor | None = None,
    ) -> Tensor:
        """Returns the prediction [B, ...] at states z [B, ...] and time t, in the parameterization asked for.

        A time for each sample is a float64 tensor [B] on the host.

        Args:
            to: where the step goes; needed by networks that are told (`Denoiser.takes_to`).
        """
        ...
