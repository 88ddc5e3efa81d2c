"""Predictor–corrector: Langevin steps at a level of noise, then an ancestral step to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.dpmpp_multistep import multistep_row
from trilemma_plugins.solvers.exponential import adams_weights, alpha_sigma_lambda


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """At every time t, `corrections` Langevin steps with the signal-to-noise ratio r, then DDPM's step from t to s:

        z ← z + ε ∇ log p(z) + √(2ε) ξ,   ε = 2 r² σ_t²
        z_s = Ψ (σ_s²/σ_t²) z + α_s (Q/σ_t²) x̂₀ + √(Q σ_s²/σ_t²) ξ,   q(z_t | z_s) = N(Ψ z_s, Q)

    The paper's ε = 2 (r ‖ξ‖/‖∇ log p‖)² takes the norms of a batch, which would make a sample depend on those drawn
    beside it; here their expectations replace them, E‖ξ‖² = D and E‖∇ log p‖² = D/σ_t². Langevin steps of a fixed r
    draw from p only up to an error of order r², which more steps do not reduce. There are none at σ = 0.

    Use: many evaluations, where the corrector takes errors of the predictor away; with 0 corrections it is `ddpm`.

    Args:
        corrections: Langevin steps before every step; each is one evaluation.
        snr: r, above 0 and below 1.

    Raises:
        UsageError: for an option out of range.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
    """

    corrections: int = 1
    snr: float = 0.16
    grid: Grid = "trailing"
    clip: float | None = None

    deterministic = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.corrections, "predictor-corrector: corrections", 0, 100_000, what="is no count")
        if not 0 < self.snr < 1:
            raise UsageError(
                f"predictor-corrector: snr={self.snr!r} is out of range; give a number between 0 and 1, as 0.16"
            )

    @property
    def order(self) -> int:
        return 0 if self.corrections else 1

    # It follows from the options.
    @property
    def exact(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.corrections else ("point",)

    def nfe(self, steps: int) -> int:
        return steps * (1 + self.corrections)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        # ∇ log p = (α x̂₀ − z)/σ²
        move = 2 * self.snr**2
        rows: list[Row] = []
        for i, t in enumerate(times[:-1].tolist()):
            langevin = Row(t, 1 - move, ((0, move * alpha[i]),), math.sqrt(2 * move) * sigma[i])
            rows += [langevin] * self.corrections
            h = lam[i + 1] - lam[i]
            ancestral = adams_weights([0.0], h, 2.0)
            rows.append(multistep_row(t, alpha[i + 1], (sigma[i], sigma[i + 1]), h, 1.0, ancestral))
        return Tableau(tuple(rows), "x0", self.clip)
