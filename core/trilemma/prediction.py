"""The guided prediction as a function, for samplers that have no plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from trilemma.conversion import convert
from trilemma.denoiser import Denoiser
from trilemma.guidance import Guidance


class Prediction:
    """(z, t) → x̂₀, ε̂, v̂ or the score of a denoiser under guidance, all branches in one batch.

    Attributes:
        evaluations: calls so far; each pays `branches` evaluations of the network.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guidance: Guidance,
        cond: Mapping[str, Tensor],
        branches: int,
        network_dtype: torch.dtype,
    ) -> None:
        self.denoiser = denoiser
        self.guidance = guidance
        self.cond = cond
        self.branches = branches
        self.network_dtype = network_dtype
        self.evaluations = 0
        self._coefficients = cache(self._coefficients_at)

    def __call__(self, z: Tensor, t: float, parameterization: str = "x0") -> Tensor:
        """The prediction [B, ...] at states z [B, ...] and time t, in the parameterization asked for."""
        self.evaluations += 1
        count = self.branches * len(z)
        state = z.to(self.network_dtype).repeat(self.branches, *(1,) * (z.dim() - 1))
        time = torch.full((count,), t, dtype=torch.float32, device=z.device)
        outputs = self.denoiser(state, time, **self.cond).to(z.dtype).chunk(self.branches)
        if self.guidance.linear:
            combined = sum(w * o for w, o in zip(self.guidance.weights(t), outputs, strict=True))
        else:
            combined = self.guidance.combine(z, t, outputs, self.denoiser)
        p, q = self._coefficients(t, parameterization)
        prediction: Tensor = p * z + q * combined
        return prediction

    def _coefficients_at(self, t: float, parameterization: str) -> tuple[float, float]:
        time = torch.tensor(t, dtype=torch.float64)
        process = self.denoiser.process
        p, q = convert(
            self.denoiser.parameterization, parameterization, process.alpha(time), process.sigma(time)
        )
        return p.item(), q.item()
