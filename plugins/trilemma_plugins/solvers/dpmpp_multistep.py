"""DPM-Solver++ multistep: exponential Adams–Bashforth in x̂₀, along the flow or along a reverse equation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.exponential import adams_moment, adams_weights, alpha_sigma_lambda, history


def multistep_row(
    t: float,
    alpha: float,
    sigmas: tuple[float, float],
    h: float,
    eta: float,
    weights: Sequence[float],
    change: Sequence[float] = (),
) -> Row:
    """Returns z_s = (σ_s/σ_t) e^(−ηh) z_t + α_s Σ_j w_j x̂₀(λ_{i−j}) + σ_s √(1 − e^(−2ηh)) ξ; α is that of s.

    Where z_t is still to be corrected, `change` are the weights of the correction, newest prediction first.
    """
    sigma_t, sigma_s = sigmas
    A, C = sigma_s / sigma_t, 0.0
    # h may be infinite.
    if eta:
        A *= math.exp(-eta * h)
        C = sigma_s * math.sqrt(-math.expm1(-2 * (eta * h)))
    terms = [alpha * w for w in weights]
    if change:
        terms = [w + A * c for w, c in zip_longest(terms, change, fillvalue=0.0)]
    return Row(t, A, tuple(enumerate(terms)), C)


def checked_eta(name: str, eta: float) -> None:
    if not 0 <= eta < math.inf:
        raise UsageError(
            f"{name}: eta={eta!r} is out of range; give a number from 0 (no noise) up, such as 1"
        )


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """Two-step DPM-Solver++, with c = 1 + η, λ = log(α/σ), h = λ_s − λ_t and h₁ = λ_t − λ_{t₋₁}:

        z_s = (σ_s/σ_t) e^(−ηh) z_t + α_s [(1 − e^(−ch)) x̂₀ + w (h/h₁)(x̂₀ − x̂₀₋₁)] + σ_s √(1 − e^(−2ηh)) ξ

    heun: w = 1 − (1 − e^(−ch))/(ch), the exact integral of the line; midpoint: w = (1 − e^(−ch))/2. The first step
    and one onto σ = 0 are of first order. η = 0 follows the probability flow, η = 1 the reverse-time equation.

    Use: the first choice for ten to thirty evaluations, guided or not.

    Args:
        solver: "midpoint" or "heun".
        eta: η ≥ 0.

    Raises:
        UsageError: for an option out of range.

    References:
        Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095.
    """

    solver: Literal["midpoint", "heun"] = "midpoint"
    eta: float = 0.0
    grid: Grid = "trailing"
    clip: float | None = None

    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_eta("dpmpp-2m", self.eta)
        if self.solver not in ("midpoint", "heun"):
            raise UsageError(f"dpmpp-2m: solver={self.solver!r} is unknown; give midpoint or heun")

    @property
    def order(self) -> int:
        return 1 if self.eta else 2

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        rows = []
        for i, t in enumerate(times[:-1].tolist()):
            h, nodes = lam[i + 1] - lam[i], history(lam, i, 2)
            if self.solver == "midpoint" and len(nodes) == 2:
                whole = -math.expm1(-(1 + self.eta) * h)
                slope = whole * h / (2 * nodes[1])
                weights = [whole - slope, slope]
            else:
                weights = adams_weights(nodes, h, 1 + self.eta)
            rows.append(multistep_row(t, alpha[i + 1], (sigma[i], sigma[i + 1]), h, self.eta, weights))
        return Tableau(tuple(rows), "x0", self.clip)


@dataclass(frozen=True)
class DPMpp2MSDE(DPMpp2M):
    """`DPMpp2M` along the reverse-time equation, η = 1.

    Use: twenty steps and more, where fresh noise washes out the model's errors; below, `dpmpp-2m` is ahead.
    """

    eta: float = 1.0

    @property
    def strong_order(self) -> float | None:  # type: ignore[override]
        return 1.0 if self.eta else None


@dataclass(frozen=True)
class DPMpp3M(Sampler):
    """Three-step DPM-Solver++, with c = 1 + η, λ = log(α/σ), h = λ_s − λ_t:

        z_s = (σ_s/σ_t) e^(−ηh) z_t + α_s ∫₀ʰ c e^(−c(h−u)) p(u) du + σ_s √(1 − e^(−2ηh)) ξ

    for the parabola p through the last three x̂₀; the line and the constant at the start, the constant onto σ = 0.
    The first step's own error is of second order in h and stays in the result, however small the others'.

    Use: in place of `dpmpp-2m` where there are fifteen steps or more and the model is not strongly guided.

    Args:
        eta: η ≥ 0.
        curvature: weight of p's second difference: 1 is the parabola, 1/2 the published pseudocode and the
            implementations that follow it, which leave out the factor of 2 of the second derivative.

    Raises:
        UsageError: for an option out of range.

    References:
        Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095.
    """

    eta: float = 0.0
    curvature: float = 1.0
    grid: Grid = "trailing"
    clip: float | None = None

    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_eta("dpmpp-3m", self.eta)
        if not 0 <= self.curvature <= 1:
            raise UsageError(
                f"dpmpp-3m: curvature={self.curvature!r} is out of range; give a number from 0 to 1"
            )

    @property
    def order(self) -> int:
        return 1 if self.eta else 2

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        rows = []
        for i, t in enumerate(times[:-1].tolist()):
            h, nodes = lam[i + 1] - lam[i], history(lam, i, 3)
            weights = adams_weights(nodes, h, 1 + self.eta)
            if len(nodes) == 3:
                weights = self._flattened(nodes, h, weights)
            rows.append(multistep_row(t, alpha[i + 1], (sigma[i], sigma[i + 1]), h, self.eta, weights))
        return Tableau(tuple(rows), "x0", self.clip)

    def _flattened(self, nodes: list[float], h: float, weights: list[float]) -> list[float]:
        """The weights less (1 − curvature) ∫ c e^(−c(h−u)) u² du times the second divided difference."""
        square = adams_moment(2, h, 1 + self.eta)
        missing = (1 - self.curvature) * square
        others = [[a - b for b in nodes if b != a] for a in nodes]
        return [w - missing / (x * y) for w, (x, y) in zip(weights, others, strict=True)]


@dataclass(frozen=True)
class DPMpp3MSDE(DPMpp3M):
    """`DPMpp3M` along the reverse-time equation, η = 1.

    Use: as `dpmpp-2m-sde`, from thirty steps on.
    """

    eta: float = 1.0
