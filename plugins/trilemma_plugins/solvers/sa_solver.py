"""SA-Solver: a stochastic Adams predictor and corrector that share their evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.dpmpp_multistep import multistep_row
from trilemma_plugins.solvers.exponential import (
    adams_weights,
    alpha_sigma_lambda,
    correction,
    history,
    line_weights,
)


@dataclass(frozen=True)
class SASolver(Sampler):
    """Reverse-time equations with any noise τ ≥ 0 have the same marginals. With λ = log(α/σ), c = 1 + τ², a step of
    length h in λ from t to s, and x̂₀ made at the predicted states z̃:

        z̃_s = (σ_s/σ_t) e^(−τ²h) z_t + α_s Σ_j p_j x̂₀^{t−j} + σ_s √(1 − e^(−2τ²h)) ξ
        z_s = z̃_s + α_s (q₀ x̂₀ˢ + Σ_j (q_{j+1} − p_j) x̂₀^{t−j})

    p and q are ∫₀ʰ c e^(−c(h−u)) ℓ_j(u) du; the noise is the exact integral and the same in both. The corrector costs
    no evaluation: x̂₀ˢ is the next step's. As many points as there are at the start; a step onto σ = 0 has one. The
    last state is predicted, not corrected.

    Use: many steps (20 and more), where noise repairs what went wrong before; below, a smaller τ or τ = 0 is better.

    Args:
        predictor: points of the predictor, 1 to 3.
        corrector: points of the corrector, that at s among them, 1 to 3; 0 for none.
        tau: τ ≥ 0; 0 follows the probability flow, 1 the reverse-time equation.
        rho_min, rho_max: noise is added in the steps from levels ρ = σ/α between them; τ = 0 in the others.
        slope: weight of the slope between two points: its "integral", or "half" for (1 + τ²) h²/2, the integral's first
            term in h, as common implementations take it; it grows without bound and is for small steps only.

    Raises:
        UsageError: for an option out of range.

    References:
        Xue et al., SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models, arXiv:2309.05019.
    """

    predictor: int = 3
    corrector: int = 3
    tau: float = 1.0
    rho_min: float = 0.0
    rho_max: float = math.inf
    slope: Literal["integral", "half"] = "integral"
    grid: Grid = "trailing"
    clip: float | None = None

    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.predictor, "sa-solver: predictor", 1, 3, what="is out of range")
        checked_integer(self.corrector, "sa-solver: corrector", 0, 3, what="is out of range")
        if not 0 <= self.tau < math.inf:
            raise UsageError(
                f"sa-solver: tau={self.tau!r} is out of range; give a number from 0 (no noise) up, such as 1"
            )
        if not 0 <= self.rho_min <= self.rho_max:
            raise UsageError(
                f"sa-solver: rho_min={self.rho_min!r}, rho_max={self.rho_max!r}; expected 0 <= rho_min <= rho_max"
            )
        if self.slope not in ("integral", "half"):
            raise UsageError(f"sa-solver: slope={self.slope!r} is unknown; give integral or half")

    @property
    def order(self) -> int:
        if self.tau:
            return 1
        # x̂₀ˢ is read at z̃_s, so the predictor limits the corrector; the first step limits both
        return min(self.corrector, self.predictor + 1, 3) if self.corrector else min(self.predictor, 2)

    # It follows from the options.
    @property
    def strong_order(self) -> float | None:  # type: ignore[override]
        return 1.0 if self.tau else None

    @property
    def deterministic(self) -> bool:
        return self.tau == 0

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        rows: list[Row] = []
        # Change of the state that this row starts from, newest prediction first.
        change: list[float] = []
        for i, t in enumerate(times[:-1].tolist()):
            h = lam[i + 1] - lam[i]
            eta = self._eta(math.exp(-lam[i]))
            predictor = self._weights(history(lam, i, self.predictor), h, 1 + eta)
            rows.append(multistep_row(t, alpha[i + 1], (sigma[i], sigma[i + 1]), h, eta, predictor, change))
            change = []
            if self.corrector and math.isfinite(h):
                nodes = [h, *history(lam, i, self.corrector - 1)]
                change = correction(alpha[i + 1], self._weights(nodes, h, 1 + eta), predictor)
        return Tableau(tuple(rows), "x0", self.clip)

    def _eta(self, rho: float) -> float:
        """τ² in a step from this noise level."""
        return self.tau**2 if self.rho_min <= rho <= self.rho_max else 0.0

    def _weights(self, nodes: list[float], h: float, rate: float) -> list[float]:
        if self.slope == "half" and len(nodes) == 2:
            return line_weights(nodes, -math.expm1(-rate * h), rate * h * h / 2)
        return adams_weights(nodes, h, rate)
