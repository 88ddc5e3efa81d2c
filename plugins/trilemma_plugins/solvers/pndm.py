"""Pseudo linear multistep: Adams–Bashforth's even-step weights carried by DDIM's transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trilemma.process import Process
from trilemma.sampler import Sampler
from trilemma.spacing import Grid
from trilemma.tableau import Row, Tableau

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class PNDM(Sampler):
    """From t to s with ρ = σ/α and weights b of Adams–Bashforth for even steps:

        z_s = (α_s/α_t) z_t + α_s (ρ_s − ρ_t) Σ_j b_j ε̂_{−j}

    The first step is Heun's, with the mean of ε̂ at both ends; then two, three and four predictions are used. As the
    weights are those of even steps in whatever variable the grid is even in, the equation is met to first order only
    where it is not ρ.

    Use: to reproduce models tuned for it; `deis` is the same idea with weights for the steps as they are.

    Args:
        grid: of times, see `trilemma.spacing`.
        clip: bound of a static clip of x̂₀; None for none.

    References:
        Liu et al., Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778.
    """

    grid: Grid = "leading"
    clip: float | None = None

    order = 1
    deterministic = True
    from_pure_noise = False
    exact = ("point",)

    def nfe(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = (level.tolist() for level in process.levels(times))
        t = times.tolist()
        rows: list[Row] = []

        def add(i: int, at: float, terms: Sequence[tuple[int, float]], base: int = 0) -> None:
            A = alpha[i + 1] / alpha[i]
            move = sigma[i + 1] - A * sigma[i]
            rows.append(Row(at, A, tuple((lag, move * w) for lag, w in terms), base=base))

        add(0, t[0], [(0, 1.0)])
        if len(t) > 2:
            add(0, t[1], [(0, 0.5), (1, 0.5)], base=1)
        # The prediction at the uncorrected z_1 is not used again: that at the corrected one takes its place.
        for i in range(1, len(t) - 1):
            weights = enumerate(_ADAMS_BASHFORTH[min(i, 3)])
            add(i, t[i], [(lag if lag < i else lag + 1, w) for lag, w in weights])
        return Tableau(tuple(rows), "eps", self.clip)
