"""The variance-preserving process, on a table of steps and in continuous time."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.numerics.grids import MOST_STEPS


class VariancePreserving(Process):
    """z_t = √ᾱ(t) x₀ + √(1 − ᾱ(t)) ε; a schedule writes log ᾱ and its rate β = −d log ᾱ/dt."""

    @abstractmethod
    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Returns log ᾱ(t), float64, shape of t."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """Returns β(t) = −d log ᾱ/dt of dz = −½ β z dt + √β dW, float64, shape of t."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha_bar = self.log_alpha_bar(t)
        return (log_alpha_bar / 2).exp()[..., None], -log_alpha_bar.expm1()[..., None, None]

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ratio = self.log_alpha_bar(t) - self.log_alpha_bar(s)
        return (ratio / 2).exp()[..., None, None], -ratio.expm1()[..., None, None]

    def log_snr(self, t: Tensor) -> Tensor:
        log_alpha_bar = self.log_alpha_bar(t)
        return log_alpha_bar - (-log_alpha_bar.expm1()).log()

    def drift(self, t: Tensor) -> Tensor:
        return -self.beta(t)[..., None, None] / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return self.beta(t).sqrt()[..., None, None]


@dataclass(frozen=True)
class DiscreteVP(VariancePreserving):
    """The process of DDPM in T steps: x_k = √(1 − β_k) x_{k−1} + √β_k ε, ᾱ_k = Π (1 − β_j), t_k = (k+1)/T.

    linear: β_k evenly spaced from `beta_min` to `beta_max`, as they are given (not rescaled with T).
    scaled_linear: √β_k evenly spaced likewise, as latent diffusion has them (there from .00085 to .012).
    cosine: β_k = min(1 − f(t_k)/f(t_{k−1}), .999), f(t) = cos²(π/2 · (t + .008)/1.008).
    few: β_k = 1 − f(u_k)/f(u_{k−1}), u_k = δ + (1 − δ) k/T, δ = 10⁻³, f(u) = exp(−½ u² (b₁ − b₀) − u b₀), of the
        continuous process of the same rates, b = 1000 β, cut into T steps; as denoising diffusion GANs have it.

    Between the points of the table log ᾱ is interpolated linearly; t = 0 is the data (ᾱ = 1).

    Args:
        schedule: "linear", "scaled_linear", "cosine" or "few".
        T: number of steps.
        beta_min, beta_max: first and last β of the linear schedules, and of "few" for a thousand steps.

    References:
        Ho et al., Denoising Diffusion Probabilistic Models, arXiv:2006.11239 (linear).
        Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, arXiv:2102.09672 (cosine).
        Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, arXiv:2112.10752 (scaled_linear).
        Xiao et al., Tackling the Generative Learning Trilemma with Denoising Diffusion GANs, arXiv:2112.07804 (few).
    """

    schedule: str = "linear"
    T: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_schedule("vp", self.schedule, ("linear", "scaled_linear", "cosine", "few"))
        checked_integer(self.T, "vp: T", 1, MOST_STEPS, what="is not a number of steps")
        if not 0 < self.beta_min <= self.beta_max < 1:
            raise UsageError(
                f"vp: beta_min={self.beta_min!r}, beta_max={self.beta_max!r}; "
                "expected 0 < beta_min <= beta_max < 1"
            )

    # T is the option, and the table follows from it.
    @property
    def table(self) -> int:  # type: ignore[override]
        return self.T

    @cached_property
    def betas(self) -> Tensor:
        """β_0 .. β_{T−1}, float64."""
        if self.schedule == "linear":
            return torch.linspace(self.beta_min, self.beta_max, self.T, dtype=torch.float64)
        if self.schedule == "scaled_linear":
            low, high = math.sqrt(self.beta_min), math.sqrt(self.beta_max)
            return torch.linspace(low, high, self.T, dtype=torch.float64).square()
        t = torch.arange(self.T + 1, dtype=torch.float64) / self.T
        if self.schedule == "few":
            u, low, high = 1e-3 + (1 - 1e-3) * t, 1000 * self.beta_min, 1000 * self.beta_max
            return -(-(u.square().diff() / 2 * (high - low)) - u.diff() * low).expm1()
        f = ((t + 0.008) / 1.008 * (math.pi / 2)).cos().square()
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)

    @cached_property
    def _log_alpha_bars(self) -> Tensor:
        """log ᾱ at 0, 1/T, .., 1."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas).cumsum(0)])

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        table, left, weight = self._log_alpha_bars, *self._locate(t)
        return table[left] * (1 - weight) + table[left + 1] * weight

    def beta(self, t: Tensor) -> Tensor:
        table, left = self._log_alpha_bars, self._locate(t)[0]
        return (table[left] - table[left + 1]) * self.T

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        table, target = self._log_alpha_bars, -softplus(-log_snr.double())
        left = (torch.searchsorted(-table, -target) - 1).clamp(0, self.T - 1)
        weight = (table[left] - target) / (table[left] - table[left + 1])
        return (left + weight).clamp(0, self.T) / self.T

    def _locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The interval of the table that t lies in, and the place in it: exactly 0 or 1 at a table point."""
        position = t.double() * self.T
        nearest = position.round()
        # (k+1)/T times T may miss k+1 by an ulp, a time stored in float32 by more: both mean the table point.
        position = torch.where((position - nearest).abs() < 1e-7 * self.T, nearest, position)
        left = (position.ceil() - 1).clamp(0, self.T - 1)
        return left.long(), position - left


@dataclass(frozen=True)
class ContinuousVP(VariancePreserving):
    """The variance-preserving process in continuous time, t ∈ [0, 1].

    linear: β(t) = β_min + t (β_max − β_min), log ᾱ = −½ t² (β_max − β_min) − t β_min.
    cosine: λ(t) = −2 log tan(a t + b), ᾱ = sigmoid(λ), a and b such that λ runs from 20 to −20.

    Args:
        schedule: "linear" or "cosine".
        beta_min, beta_max: β at t = 0 and t = 1 of the linear schedule.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456 (linear).
        Salimans & Ho, Progressive Distillation for Fast Sampling, arXiv:2202.00512 (cosine).
    """

    schedule: str = "linear"
    beta_min: float = 0.1
    beta_max: float = 20.0

    # Without an annotation it is a constant of the schedule, not an option.
    LOG_SNR_LIMIT = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_schedule("vp-continuous", self.schedule, ("linear", "cosine"))
        if not 0 < self.beta_min <= self.beta_max:
            raise UsageError(
                f"vp-continuous: beta_min={self.beta_min!r}, beta_max={self.beta_max!r}; "
                "expected 0 < beta_min <= beta_max"
            )

    @property
    def _angle(self) -> tuple[float, float]:
        """a, b of λ = −2 log tan(a t + b)."""
        b = math.atan(math.exp(-self.LOG_SNR_LIMIT / 2))
        return math.atan(math.exp(self.LOG_SNR_LIMIT / 2)) - b, b

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        t = t.double()
        if self.schedule == "linear":
            return -t.square() / 2 * (self.beta_max - self.beta_min) - t * self.beta_min
        a, b = self._angle
        # sigmoid(−2 log tan x) = cos² x.
        angle = a * t + b
        return torch.where(angle < 0.7, torch.log1p(-angle.sin().square()), 2 * angle.cos().log())

    def beta(self, t: Tensor) -> Tensor:
        t = t.double()
        if self.schedule == "linear":
            return self.beta_min + t * (self.beta_max - self.beta_min)
        a, b = self._angle
        return 2 * a * (a * t + b).tan()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        log_snr = log_snr.double()
        if self.schedule == "cosine":
            a, b = self._angle
            return (((-log_snr / 2).exp().atan() - b) / a).clamp(0, 1)
        # −2 log ᾱ = t² Δ + 2 t β_min.
        level = 2 * softplus(-log_snr)
        root = (self.beta_min**2 + level * (self.beta_max - self.beta_min)).sqrt()
        return (level / (self.beta_min + root)).clamp(0, 1)


def _check_schedule(name: str, schedule: str, schedules: tuple[str, ...]) -> None:
    if schedule not in schedules:
        raise UsageError(f"{name}: unknown schedule {schedule!r}; expected one of {', '.join(schedules)}")
