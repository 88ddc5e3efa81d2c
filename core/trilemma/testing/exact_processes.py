"""Processes of one and of two components with moments in closed form, which samplers and networks are tested on."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process

_F = torch.tensor([[0.0, 1.0], [-1.0, -2.0]], dtype=torch.float64)
_G = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
# The velocity starts independent of x₀.
_START = torch.diag(torch.tensor([0.0, 0.04], dtype=torch.float64))
_SPEED = 7.0


class AngleProcess(Process):
    """α = cos φ, σ = sin φ at the angle φ = 3t/2: smooth, and at t = 1 not yet free of the data."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = 1.5 * t.double()
        return angle.cos()[..., None], angle.sin().square()[..., None, None]

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((-log_snr / 2).exp().atan() / 1.5).clamp(0, 1)


class PhaseProcess(Process):
    """Critically damped: dx = v dτ, dv = −(x + 2v) dτ + 2 dW, τ = 7t. What stands still is N(0, I).

    With E = e^(Fτ): mean E (1, 0), covariance I − E (I − diag(0, 0.04)) Eᵀ.
    """

    components = 2

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        E, one = self._flow(t), torch.eye(2, dtype=torch.float64)
        cov: Tensor = one - E @ (one - _START) @ E.mT
        return E[..., 0], cov

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        E = self._flow(t - s)
        return E, torch.eye(2, dtype=torch.float64) - E @ E.mT

    def drift(self, t: Tensor) -> Tensor:
        return (_SPEED * _F).expand(*t.shape, 2, 2)

    def diffusion(self, t: Tensor) -> Tensor:
        G: Tensor = _SPEED**0.5 * _G
        return G.expand(*t.shape, 2, 2)

    def _flow(self, t: Tensor) -> Tensor:
        """e^(Fτ) = e^(−τ) (1 + (F + 1) τ), as (F + 1)² = 0."""
        tau = _SPEED * t.double()[..., None, None]
        one = torch.eye(2, dtype=torch.float64)
        flow: Tensor = (-tau).exp() * (one + (_F + one) * tau)
        return flow
