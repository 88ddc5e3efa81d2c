"""Importance sampling of training times: for each weighting the times at which the loss of a normal prior is constant.

Of codes z₀ ~ N(0, I), which a regularised encoder nearly has, and the answer ε̂ = σ z_t that is right for them,
E‖ε − ε̂‖² = (1 − σ²) D. The integral of w(t) E‖ε − ε̂‖² over time has no variance where t is drawn with a density
r(t) ∝ w(t) (1 − σ²), and each of these has a closed form on a variance-preserving process (2106.05931, appendix B):

    weighting       w(t)        r(t)              w/r
    ll              ½ g²/σ²     ∝ d log σ²/dt     ½ ln(σ₁²/σ_ε²)/(1 − σ²)       likelihood
    drop-sigma2     ½ g²        ∝ d σ²/dt         ½ (σ₁² − σ_ε²)/(1 − σ²)       the published samples
    unweighted      ½           ∝ 1 − σ²          ½ Z/(1 − σ²),  Z = ∫ (1 − σ²) dt

between the first time t_ε and 1. They hold for every data set; the variance is least where its codes are normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process

Weighting = Literal["ll", "drop-sigma2", "unweighted"]
WEIGHTINGS = get_args(Weighting)

# t_ε of a process without noise at t = 0, whose weight of the likelihood is infinite there.
FIRST = 0.01
# Cells of the table that a time of the unweighted loss is looked up in, and steps of Newton's method from there.
_CELLS, _NEWTON = 256, 4


@dataclass(frozen=True)
class Drawn:
    """Times of a batch, and what the squared error at each weighs.

    Attributes:
        t: times [B], float64.
        weight: w/r [B] of ‖ε − ε̂‖², float64, of the chosen weighting.
        likelihood: the same of the weighting ll, for these times: the encoder's.
    """

    t: Tensor
    weight: Tensor
    likelihood: Tensor


@dataclass(frozen=True)
class ImportanceSampling:
    """The times of a variance-preserving process between t_ε and 1, by weighting.

    Args:
        process: with α² + σ² = 1.
        first: t_ε; None for 0 where the process has noise at t = 0, else 0.01.

    Raises:
        UsageError: for another process, or a t_ε that is no time of it.
    """

    process: Process
    first: float | None = None

    def __post_init__(self) -> None:
        if self.process.components != 1 or not self._preserves_variance():
            raise UsageError(
                "lsgm: α² + σ² is not 1; choose a variance-preserving process, such as vp-geometric or vp-continuous"
            )
        lowest = 0.0 if self._begins_with_noise else FIRST
        object.__setattr__(self, "first", lowest if self.first is None else float(self.first))
        assert self.first is not None
        if not lowest <= self.first < 1 and not 0 < self.first < 1:
            raise UsageError(
                f"lsgm: first={self.first!r} is no time of this process; give one between 0 and 1"
            )

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """σ²(t_ε) and σ²(1), float64."""
        low, high = torch.sigmoid(-self.process.log_snr(self._interval)).unbind()
        return low, high

    def draw(self, weighting: Weighting, u: Tensor) -> Drawn:
        """Returns the times of uniform numbers u [B] in [0, 1), float64, and their weights."""
        low, high = self.ends
        match weighting:
            case "ll":
                variance = low * (high / low) ** u
                weight = (high / low).log() / (1 - variance) / 2
                return Drawn(self._time(variance), weight, weight)
            case "drop-sigma2":
                variance = low + (high - low) * u
                weight = (high - low) / (1 - variance) / 2
                return Drawn(self._time(variance), weight, weight / variance)
        t, total = self._unweighted(u)
        signal, rate = self.process.alpha(t).square(), self.process.diffusion(t)[..., 0, 0].square()
        weight = total / signal / 2
        return Drawn(t, weight, weight * rate / self.process.sigma(t).square())

    def _time(self, variance: Tensor) -> Tensor:
        return self.process.time_of_log_snr(torch.log1p(-variance) - variance.log())

    def _unweighted(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """t with ∫ α² dt from t_ε to t equal to u Z, and Z."""
        places, heights = self._integrals
        wanted = u * heights[-1]
        cell = (torch.searchsorted(heights, wanted, right=True) - 1).clamp(0, _CELLS - 1)
        low, high, base = places[cell], places[cell + 1], heights[cell]
        t = low + (high - low) * (wanted - base) / (heights[cell + 1] - base)
        for _ in range(_NEWTON):
            missing = wanted - base - self._integral(low, t)
            t = (t + missing / self.process.alpha(t).square()).clamp(low, high)
        return t, heights[-1]

    @cached_property
    def _integrals(self) -> tuple[Tensor, Tensor]:
        """Places from t_ε to 1, and ∫ α² dt from t_ε to each."""
        first, last = self._interval.tolist()
        places = torch.linspace(first, last, _CELLS + 1, dtype=torch.float64)
        cells = self._integral(places[:-1], places[1:])
        return places, torch.cat([cells.new_zeros(1), cells.cumsum(0)])

    def _integral(self, low: Tensor, high: Tensor) -> Tensor:
        """∫ α² dt from low to high [N], by Gauss and Legendre's rule of five nodes, exact to rounding in a cell."""
        t = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * _NODES
        return (high - low) * (self.process.alpha(t).square() @ _WEIGHTS)

    @property
    def _interval(self) -> Tensor:
        return torch.tensor([self.first, 1.0], dtype=torch.float64)

    @property
    def _begins_with_noise(self) -> bool:
        start = torch.zeros((), dtype=torch.float64)
        return self.process.table is None and bool(self.process.log_snr(start).isfinite())

    def _preserves_variance(self) -> bool:
        t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
        mean, cov = self.process.moments(t)
        return bool((mean[..., 0].square() + cov[..., 0, 0] - 1).abs().max() < 1e-9)


# Nodes and weights of the rule on [0, 1].
_ROOTS = torch.tensor([0.0, 0.5384693101056831, 0.9061798459386640], dtype=torch.float64)
_NODES = (1 + torch.cat([-_ROOTS[1:].flip(0), _ROOTS])) / 2
_HALF = torch.tensor([0.5688888888888889, 0.4786286704993665, 0.2369268850561891], dtype=torch.float64)
_WEIGHTS = torch.cat([_HALF[1:].flip(0), _HALF]) / 2
