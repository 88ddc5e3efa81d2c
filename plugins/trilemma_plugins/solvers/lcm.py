"""The multistep consistency step: denoise, then add fresh noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau


@dataclass(frozen=True)
class LCM(Sampler):
    """The data as the network sees them, noised afresh for the next time:

        z_s = α_s x̂₀(z_t) + σ_s ξ,   z₀ = x̂₀

    Use: networks distilled to answer with a sample x̂₀ at once (consistency models), in one to eight steps. With an
    ordinary network x̂₀ is a mean, and the samples of few steps are too smooth.

    References:
        Song et al., Consistency Models, arXiv:2303.01469; Luo et al., Latent Consistency Models, arXiv:2310.04378.
    """

    grid: Grid = "trailing"
    clip: float | None = None

    order = 0
    deterministic = False
    exact = ("point",)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = (level.tolist() for level in process.alpha_sigma(times[1:]))
        rows = [Row(t, 0.0, ((0, a),), s) for t, a, s in zip(times[:-1].tolist(), alpha, sigma, strict=True)]
        return Tableau(tuple(rows), "x0", self.clip)
