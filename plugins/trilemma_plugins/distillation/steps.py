"""The steps of a student on a grid, and the scales of a process at their times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import Grid, spaced_times
from trilemma.numerics.broadcasting import column


def halved_times(process: Process, steps: int, grid: Grid) -> Tensor:
    """Returns the 2N + 1 times of a grid, every second of which is one of the grid of N = `steps`, float64.

    Raises:
        UsageError: where the two grids disagree, or for a process of several components.
    """
    check_one_component(process)
    fine, coarse = spaced_times(process, 2 * steps, grid), spaced_times(process, steps, grid)
    if not torch.allclose(fine[::2], coarse, rtol=0, atol=1e-9):
        raise UsageError(
            f"grid={grid!r} of {2 * steps} steps does not pass through the times of its {steps} steps; "
            "choose another number of steps, or grid=trailing"
        )
    return fine


def check_one_component(process: Process) -> None:
    """Raises UsageError for a process of several components."""
    if process.components != 1:
        raise UsageError(
            f"{type(process).__name__} has {process.components} components, and a distillation runs on one; "
            "choose another process"
        )


@dataclass(frozen=True)
class Scales:
    """α and σ at times [B], float64 on the host; time 0 is the data."""

    alpha: Tensor
    sigma: Tensor

    @classmethod
    def at(cls, process: Process, t: Tensor) -> Scales:
        """Returns the scales of a process at times t [B]."""
        return cls(*process.alpha_sigma(t))

    def state(self, x0: Tensor, noise: Tensor) -> Tensor:
        """Returns α x₀ + σ ε [B, ...]."""
        return column(self.alpha, x0) * x0 + column(self.sigma, x0) * noise

    @property
    def snr(self) -> Tensor:
        """α²/σ² [B]."""
        return (self.alpha / self.sigma).square()


def flow_step(z: Tensor, x0: Tensor, t: Scales, s: Scales) -> Tensor:
    """Returns z_s = α_s x̂₀ + (σ_s/σ_t)(z_t − α_t x̂₀), the step of DDIM at η = 0 (2010.02502)."""
    ratio = s.sigma / t.sigma
    return column(ratio, z) * z + column(s.alpha - ratio * t.alpha, z) * x0


def ddim_step(z: Tensor, x0: Tensor, t: Scales, s: Scales, eta: float, noise: Tensor) -> Tensor:
    """Returns z_s [B, ...] by the step of DDIM with new noise ξ (2010.02502, equation 12).

        z_s = α_s x̂₀ + √(σ_s² − η² v) ε̂ + η √v ξ,   ε̂ = (z_t − α_t x̂₀)/σ_t,   v = σ_s² (1 − α_t² σ_s²/(α_s² σ_t²))

    v is the variance of q(z_s | z_t, x₀), from which η = 1 draws.

    Args:
        z: states z_t [B, ...].
        x0: answers x̂₀ [B, ...].
        t, s: the scales at both times.
        eta: η in [0, 1].
        noise: standard normals ξ [B, ...].
    """
    variance = s.sigma.square() * (1 - (t.alpha * s.sigma / (s.alpha * t.sigma)).square()).clamp_min(0)
    kept = (s.sigma.square() - eta**2 * variance).clamp_min(0).sqrt() / t.sigma
    mean = column(kept, z) * z + column(s.alpha - kept * t.alpha, z) * x0
    return mean + column(eta * variance.sqrt(), z) * noise
