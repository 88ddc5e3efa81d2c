"""DPM-Solver++ 2S: a midpoint step in x̂₀, along the flow or with ancestral noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.exponential import alpha_sigma_lambda, time_of


@dataclass(frozen=True)
class DPMpp2S(Sampler):
    """From t to s, by way of the middle m, in λ = log(α/σ), of t and of the noise level σ_↓ ≤ σ_s at α_s:

        z_m = (σ_m/σ_t) z_t + (α_m − α_t σ_m/σ_t) x̂₀(z_t)
        z_s = (σ_↓/σ_t) z_t + (α_s − α_t σ_↓/σ_t) x̂₀(z_m) + σ_↑ ξ,   σ_↓² + σ_↑² = σ_s²
        σ_↑ = σ_s min(1, η √(1 − (α_t σ_s/(α_s σ_t))²))

    A step onto σ = 0 is one evaluation of first order; from α_t = 0 the middle is that of α/σ.

    Use: guided sampling where a memory of earlier steps hurts, as after a change of conditions; `dpmpp-2m` costs half.

    Args:
        eta: η in [0, 1]; 0 follows the probability flow.

    Raises:
        UsageError: for an option out of range.

    References:
        Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095.
    """

    eta: float = 0.0
    grid: Grid = "trailing"
    clip: float | None = None

    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UsageError(f"dpmpp-2s: eta={self.eta!r} is out of range; give a number from 0 to 1")

    @property
    def order(self) -> int:
        return 1 if self.eta else 2

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        rows = []
        for i, t in enumerate(times[:-1].tolist()):
            shrink = (alpha[i] * sigma[i + 1]) / (alpha[i + 1] * sigma[i])
            up = sigma[i + 1] * min(1.0, self.eta * math.sqrt(max(0.0, 1 - shrink * shrink)))
            down = math.sqrt(max(sigma[i + 1] ** 2 - up * up, 0.0))
            base = 0
            if sigma[i + 1] > 0:
                middle = time_of(
                    process, _middle(lam[i], lam[i + 1], math.log(alpha[i + 1] / down) if down else math.inf)
                )
                at = torch.tensor(middle, dtype=torch.float64)
                rows.append(
                    _flow_row(t, alpha[i], sigma[i], float(process.alpha(at)), float(process.sigma(at)))
                )
                t, base = middle, 1
            rows.append(_flow_row(t, alpha[i], sigma[i], alpha[i + 1], down, up, base))
        return Tableau(tuple(rows), "x0", self.clip)


@dataclass(frozen=True)
class DPMpp2SAncestral(DPMpp2S):
    """`DPMpp2S` with ancestral noise, η = 1.

    Use: varied samples where the evaluations are there for it, as the second one a step makes up for the noise.
    """

    eta: float = 1.0


def _middle(start: float, end: float, down: float) -> float:
    """λ of the middle stage."""
    if math.isfinite(start):
        return (start + down) / 2 if math.isfinite(down) else end
    return down - math.log(2) if math.isfinite(down) else end


def _flow_row(
    t: float, alpha_t: float, sigma_t: float, alpha: float, sigma: float, noise: float = 0.0, base: int = 0
) -> Row:
    ratio = sigma / sigma_t
    return Row(t, ratio, ((0, alpha - alpha_t * ratio),), noise, base)
