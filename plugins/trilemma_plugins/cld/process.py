"""Langevin diffusion in phase space: noise enters the velocity, and the position follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma_plugins.cld.oscillator import gathered_covariance, propagator


@dataclass(frozen=True)
class CLD(Process):
    """dx = β v/M dt,   dv = −β x dt − β Γ v/M dt + √(2Γβ) dW,   x₀ the data, v₀ ~ N(0, γM).

    With B = ∫β dt, E the flow of the oscillator over B and Q the noise gathered on the way,

        mean = E (1, 0),   cov = E diag(0, γM) Eᵀ + Q.

    N(0, 1) × N(0, M) is stationary and is the prior. Γ = 2√M damps critically, which reaches it fastest without
    oscillations. No entry is computed as a difference of larger numbers, so that all stay exact as t → 0.

    Args:
        inverse_mass: 1/M.
        friction: Γ; None for critical damping.
        schedule: "constant" or "linear" β.
        beta: β of the constant schedule.
        beta_min, beta_max: β at t = 0 and t = 1 of the linear one.
        gamma: γ, the variance of v₀ in units of M.

    Raises:
        UsageError: for an option out of range.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """

    inverse_mass: float = 4.0
    friction: float | None = None
    schedule: str = "constant"
    beta: float = 4.0
    beta_min: float = 0.1
    beta_max: float = 8.0
    gamma: float = 0.04

    components = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in ("constant", "linear"):
            raise UsageError(f"cld: unknown schedule {self.schedule!r}; expected constant or linear")
        for name in ("inverse_mass", "friction", "beta", "beta_min", "gamma"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"cld: {name}={value!r} is not positive; give a positive number")
        if not self.beta_min <= self.beta_max < math.inf:
            raise UsageError(
                f"cld: beta_max={self.beta_max!r} is below beta_min={self.beta_min!r}; give a larger one"
            )

    @property
    def mass(self) -> float:
        return 1 / self.inverse_mass

    @property
    def damping(self) -> float:
        """Γ."""
        return 2 * math.sqrt(self.mass) if self.friction is None else self.friction

    def rate(self, t: Tensor) -> Tensor:
        """Returns β(t), float64, shape of t."""
        t = t.double()
        if self.schedule == "constant":
            return torch.full_like(t, self.beta)
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def elapsed(self, s: Tensor, t: Tensor) -> Tensor:
        """Returns ∫β from s to t, float64: the interval times β at its middle, exact for both schedules."""
        s, t = s.double(), t.double()
        return (t - s) * self.rate((s + t) / 2)

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        psi, Q = self.transition(torch.zeros_like(t), t)
        # The image of v₀.
        kick = psi[..., 1]
        return psi[..., 0], self.gamma * self.mass * kick.unsqueeze(-1) * kick.unsqueeze(-2) + Q

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        B = self.elapsed(s, t)
        m, friction = self.inverse_mass, self.damping
        return propagator(B, m, friction), gathered_covariance(B, m, friction)

    def drift(self, t: Tensor) -> Tensor:
        m = self.inverse_mass
        F = torch.tensor([[0.0, m], [-1.0, -self.damping * m]], dtype=torch.float64)
        return self.rate(t)[..., None, None] * F

    def diffusion(self, t: Tensor) -> Tensor:
        G = torch.tensor([[0.0, 0.0], [0.0, math.sqrt(2 * self.damping)]], dtype=torch.float64)
        return self.rate(t).sqrt()[..., None, None] * G

    def prior(self, noise: Tensor) -> Tensor:
        x, v = noise.chunk(2, 1)
        return torch.cat([x, v * math.sqrt(self.mass)], 1)
