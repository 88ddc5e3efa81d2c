"""Euler–Maruyama for the reverse-time equation of any process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau, matrix_row


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """A step of dz = (F z − G² ∇ log p) dt + G dW from t down to s, h = t − s:

        z_s = (1 − h F) z_t + h G Gᵀ ∇ log p(z_t) + √h G ξ

    on any number of components of which noise enters the last. The equation has no drift where α = 0, so a rectified
    flow must start below t = 1. A step onto the data, t = 0, returns E[z_0 | z]: x̂₀ = (z + σ² ∇ log p)/α for K = 1.

    Use: the plain baseline for the stochastic samplers; it needs hundreds of steps.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
    """

    grid: Grid = "trailing"
    clip: float | None = None

    order = 1
    deterministic = False
    # The order is 1, not ½: the noise is additive, as G is the same for all states.
    strong_order = 1.0
    from_pure_noise = False
    components = None

    def plan(self, process: Process, times: Tensor) -> Tableau:
        t, s = times[:-1], times[1:]
        if process.components > 1:
            return self._several(process, t, s)
        h, F, variance = t - s, process.drift(t)[..., 0, 0], process.diffusion(t)[..., 0, 0].square()
        alpha, sigma = process.alpha_sigma(t)
        onto_data = s == 0
        A = torch.where(onto_data, 1 / alpha, 1 - h * F)
        B = torch.where(onto_data, sigma.square() / alpha, h * variance)
        C = torch.where(onto_data, 0.0, (h * variance).sqrt())
        rows = torch.stack([t, A, B, C], -1).tolist()
        return Tableau(tuple(Row(t, A, ((0, B),), C) for t, A, B, C in rows), "score", self.clip)

    def _several(self, process: Process, t: Tensor, s: Tensor) -> Tableau:
        """The same with matrices."""
        h, F, G = (t - s)[:, None, None], process.drift(t), process.diffusion(t)
        A = torch.eye(process.components, dtype=torch.float64) - h * F
        B, C = (h * G @ G.mT)[..., -1], h.sqrt() * G
        landed_A, landed_B = process.step_onto_data(t, "score")
        onto = (s == 0)[:, None]
        A, B = torch.where(onto[..., None], landed_A, A), torch.where(onto, landed_B, B)
        C = C.masked_fill(onto[..., None], 0.0)
        rows = tuple(matrix_row(t, a, (b,), c) for t, a, b, c in zip(t.tolist(), A, B, C, strict=True))
        return Tableau(rows, "score", self.clip, process.components)
