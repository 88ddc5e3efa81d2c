"""DPM-Solver: exponential Runge–Kutta in ε̂, one to three evaluations a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.exponential import alpha_sigma_lambda, phi, time_of


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """From t to s with λ = log(α/σ), h = λ_s − λ_t and stages at λ_t + r h, ψ(x) = eˣ − 1:

        z₁ = (α₁/α_t) z_t − σ₁ ψ(r₁h) ε̂_t
        order 2:  z_s = (α_s/α_t) z_t − σ_s ψ(h) ε̂_t − σ_s ψ(h)/(2r₁) (ε̂₁ − ε̂_t)
        order 3:  z₂ = (α₂/α_t) z_t − σ₂ ψ(r₂h) ε̂_t − σ₂ (r₂/r₁)(ψ(r₂h)/(r₂h) − 1)(ε̂₁ − ε̂_t)
                  z_s = (α_s/α_t) z_t − σ_s ψ(h) ε̂_t − (σ_s/r₂)(ψ(h)/h − 1)(ε̂₂ − ε̂_t),   r₂ = 2/3

    Order 1 is DDIM. The coefficients are those of x̂₀, which stays finite where α_t = 0: a step from there spends its
    evaluations on steps of first order, evenly in α/σ. A step onto σ = 0 is one evaluation of first order.

    Use: unguided models where accuracy for the number of steps counts more than for the evaluations; order 3 for
    reference solutions. Guided models are better served by `dpmpp-2m`.

    Args:
        order: 1, 2 or 3, which is also the number of evaluations of a step.
        r1: place of the first stage, in (0, 1), for order 3 below 2/3; 1/2 (order 2) or 1/3 by default.

    Raises:
        UsageError: for an option out of range.

    References:
        Lu et al., DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps,
        arXiv:2206.00927.
    """

    order: int = 2
    r1: float | None = None
    grid: Grid = "trailing"
    clip: float | None = None

    deterministic = True
    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.order, "dpm: order", 1, 3, what="is out of range")
        limit = 2 / 3 if self.order == 3 else 1.0
        if self.r1 is not None and not 0 < self.r1 < limit:
            raise UsageError(f"dpm: r1={self.r1!r} is out of range; give a number between 0 and {limit:.3g}")

    def nfe(self, steps: int) -> int:
        return self.order * (steps - 1) + 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        rows: list[Row] = []
        for i, t in enumerate(times[:-1].tolist()):
            inner = self._stages(lam[i], lam[i + 1])
            stages = [time_of(process, place) for place in inner]
            between = torch.tensor(stages, dtype=torch.float64)
            a = [alpha[i], *process.alpha(between).tolist(), alpha[i + 1]]
            s = [sigma[i], *process.sigma(between).tolist(), sigma[i + 1]]
            if math.isfinite(lam[i]):
                rows += self._step([t, *stages], a, s, [lam[i], *inner, lam[i + 1]])
            else:
                for k, time in enumerate([t, *stages]):
                    ratio = s[k + 1] / s[k]
                    rows.append(Row(time, ratio, ((0, a[k + 1] - a[k] * ratio),)))
        return Tableau(tuple(rows), "x0", self.clip)

    def _stages(self, start: float, end: float) -> list[float]:
        """λ of the stages after the first."""
        if not math.isfinite(end):
            return []
        if not math.isfinite(start):
            return [end + math.log(k / self.order) for k in range(1, self.order)]
        r1 = self.r1 or 1 / max(self.order, 2)
        return [start + r * (end - start) for r in (r1, 2 / 3)[: self.order - 1]]

    def _step(self, t: list[float], alpha: list[float], sigma: list[float], lam: list[float]) -> list[Row]:
        """Rows of one step; a state or ε̂ is its coefficients of z_t and of x̂₀ at each stage."""
        count = len(t)
        basis = torch.eye(1 + count, dtype=torch.float64)
        state, noises, rows = basis[0], [], []
        for k in range(count):
            noises.append((state - alpha[k] * basis[1 + k]) / sigma[k])
            ratio = alpha[k + 1] / alpha[0]
            # σ ψ(h) = (α/α_t) σ_t − σ, finite at σ = 0
            state = ratio * basis[0] - (ratio * sigma[0] - sigma[k + 1]) * noises[0]
            if k:
                state = state - self._second(k, count, lam, sigma[k + 1]) * (noises[k] - noises[0])
            entries = state.tolist()
            rows.append(Row(t[k], entries[0], tuple((j, entries[1 + k - j]) for j in range(k + 1)), base=k))
        return rows

    def _second(self, k: int, count: int, lam: list[float], sigma: float) -> float:
        """Coefficient of −(ε̂_k − ε̂_t)."""
        h, place = lam[k + 1] - lam[0], lam[k] - lam[0]
        if count == 2:
            return sigma * math.expm1(h) * h / (2 * place)
        return sigma * h * phi(2, h) * h / place
