"""Processes that keep the data and only add noise: α = 1."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process


class Exploding(Process):
    """z_t = x₀ + σ(t) ε; a schedule writes σ² and its differences. The prior is N(0, σ(1)²), the data left out."""

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """Returns σ²(t), float64, shape of t."""

    @abstractmethod
    def added(self, s: Tensor, t: Tensor) -> Tensor:
        """Returns σ²(t) − σ²(s) without cancellation, float64."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """Returns G² = dσ²/dt, float64."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        variance = self.variance(t)
        return torch.ones_like(variance)[..., None], variance[..., None, None]

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        Q = self.added(s, t)[..., None, None]
        return torch.ones_like(Q), Q

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)[..., None, None]

    def diffusion(self, t: Tensor) -> Tensor:
        return self.rate(t).sqrt()[..., None, None]

    def log_snr(self, t: Tensor) -> Tensor:
        return -self.variance(t).log()

    def prior(self, noise: Tensor) -> Tensor:
        last = self.variance(torch.ones((), dtype=torch.float64)).sqrt()
        return noise * last.item()


@dataclass(frozen=True)
class VE(Exploding):
    """The geometric variance-exploding process, σ²(t) = σ_min² ((σ_max/σ_min)^{2t} − 1).

    The −1 makes σ(0) = 0, so that t = 0 is the data; the diffusion, G = σ_min (σ_max/σ_min)^t √(2 log(σ_max/σ_min)),
    is the paper's.

    Args:
        sigma_min, sigma_max: σ_min and, but for the −1, σ(1), in units of the data.

    Raises:
        UsageError: unless 0 < sigma_min < sigma_max.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_levels("ve", self.sigma_min, self.sigma_max)

    @property
    def _rate(self) -> float:
        """2 log(σ_max/σ_min)."""
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def variance(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * torch.expm1(self._rate * t.double())

    def added(self, s: Tensor, t: Tensor) -> Tensor:
        s, t = s.double(), t.double()
        return self.sigma_min**2 * (self._rate * s).exp() * torch.expm1(self._rate * (t - s))

    def rate(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * self._rate * (self._rate * t.double()).exp()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((-log_snr.double()).exp() / self.sigma_min**2).log1p().div(self._rate).clamp(0, 1)


@dataclass(frozen=True)
class EDM(Exploding):
    """The process of EDM, σ(t) = σ_max t.

    The noise level is the clock. Grids stop at σ_min (`smallest_time` = σ_min/σ_max); the spacing of the paper is
    "karras:rho=7".

    Args:
        sigma_min, sigma_max: smallest level a network is asked at, and that of the prior, in units of the data.

    Raises:
        UsageError: unless 0 < sigma_min < sigma_max.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_levels("edm", self.sigma_min, self.sigma_max)

    # It follows from the options.
    @property
    def smallest_time(self) -> float:  # type: ignore[override]
        return self.sigma_min / self.sigma_max

    def variance(self, t: Tensor) -> Tensor:
        return (self.sigma_max * t.double()).square()

    def added(self, s: Tensor, t: Tensor) -> Tensor:
        s, t = s.double(), t.double()
        return self.sigma_max**2 * (t - s) * (t + s)

    def rate(self, t: Tensor) -> Tensor:
        return 2 * self.sigma_max**2 * t.double()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((-log_snr.double() / 2).exp() / self.sigma_max).clamp(0, 1)


def _check_levels(name: str, smallest: float, largest: float) -> None:
    if not 0 < smallest < largest < math.inf:
        raise UsageError(
            f"{name}: sigma_min={smallest!r}, sigma_max={largest!r}; expected 0 < sigma_min < sigma_max"
        )
