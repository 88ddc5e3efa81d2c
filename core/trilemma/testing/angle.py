"""A process whose reverse equation has a closed solution for Gaussian data."""

from __future__ import annotations

from torch import Tensor

from trilemma.interfaces.process import Process


class AngleProcess(Process):
    """α = cos φ, σ = sin φ at the angle φ = 3t/2: smooth, and at t = 1 not yet free of the data."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = 1.5 * t.double()
        return angle.cos()[..., None], angle.sin().square()[..., None, None]

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((-log_snr / 2).exp().atan() / 1.5).clamp(0, 1)


def exact_ode_solution(process: Process, start: Tensor, t: Tensor, variance: float) -> Tensor:
    """x at time 0 of the probability-flow ODE from `start` at time t, data N(0, s²): z/√(α²s² + σ²) is constant."""
    scale = (process.alpha(t).square() * variance + process.sigma(t).square()).sqrt()
    solution: Tensor = start * (variance**0.5 / scale)
    return solution
