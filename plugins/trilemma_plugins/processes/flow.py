"""The straight line from data to noise: rectified flow, flow matching."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process


@dataclass(frozen=True)
class Flow(Process):
    """z_t = (1 − u) x₀ + u ε,   u = s t/(1 + (s − 1) t),

    with the shift s that spends more of the clock near the noise the larger it is (2403.03206, equation 23).
    At t = 1 nothing is left of the data: α = 0 and λ = −∞, so that ε̂ and the score say nothing of x₀ there, while
    x̂₀, v̂ and the velocity ε − x₀ ("flow") do. As a diffusion, F = −u'/(1 − u) and G² = 2 u u'/(1 − u), both
    infinite at t = 1.

    Args:
        shift: s > 0; 1 is the plain line.

    Raises:
        UsageError: for a shift that is not positive.

    References:
        Liu et al., Flow Straight and Fast, arXiv:2209.03003.
        Lipman et al., Flow Matching for Generative Modeling, arXiv:2210.02747.
        Esser et al., Scaling Rectified Flow Transformers, arXiv:2403.03206 (the shift).
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.shift < math.inf:
            raise UsageError(f"flow: shift={self.shift!r} is no shift; give a positive number, 1 for none")

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        stretch = 1 + (self.shift - 1) * t
        return ((1 - t) / stretch)[..., None], (self.shift * t / stretch).square()[..., None, None]

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns Ψ = (1 − u_t)/(1 − u_s),   Q = (u_t − u_s)(u_t + u_s − 2 u_t u_s)/(1 − u_s)²."""
        s, t = s.double(), t.double()
        stretch_s, stretch_t = 1 + (self.shift - 1) * s, 1 + (self.shift - 1) * t
        u_s, u_t, rest = self.shift * s / stretch_s, self.shift * t / stretch_t, (1 - s) / stretch_s
        gap = self.shift * (t - s) / (stretch_s * stretch_t)
        psi = (1 - t) / stretch_t / rest
        Q = gap * (u_t * (1 - u_s) + u_s * (1 - u_t)) / rest.square()
        return psi[..., None, None], Q[..., None, None]

    def drift(self, t: Tensor) -> Tensor:
        t = t.double()
        return (-self.shift / ((1 - t) * (1 + (self.shift - 1) * t)))[..., None, None]

    def diffusion(self, t: Tensor) -> Tensor:
        t = t.double()
        stretch = 1 + (self.shift - 1) * t
        return (2 * self.shift**2 * t / ((1 - t) * stretch.square())).sqrt()[..., None, None]

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        return 2 * (torch.log1p(-t) - (self.shift * t).log())

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr.double() / 2 - math.log(self.shift))
