"""Processes in closed form on which coefficients are measured, and the times of the measurement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.testing.exact_processes import AngleProcess


@dataclass(frozen=True)
class StraightProcess(Process):
    """α = 1 − t, σ = t: no signal at t = 1."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return (1 - t)[..., None], t.square()[..., None, None]

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return (log_snr / 2).neg().sigmoid()


@dataclass(frozen=True)
class ExplodingProcess(Process):
    """α = 1, σ = 5 t."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return torch.ones_like(t)[..., None], (5 * t).square()[..., None, None]

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((-log_snr / 2).exp() / 5).clamp(0, 1)

    def prior(self, noise: Tensor) -> Tensor:
        return 5 * noise


LOCAL: tuple[Process, ...] = (AngleProcess(), StraightProcess(), ExplodingProcess())
START, END = 0.9, 0.3


def startable(sampler: Sampler) -> tuple[Process, ...]:
    """Returns the processes whose prior the sampler claims to start from."""
    prior = torch.ones((), dtype=torch.float64)
    return tuple(p for p in LOCAL if sampler.from_pure_noise or float(p.alpha(prior)) > 0)


def local_times(steps: int) -> Tensor:
    """Returns times from 0.9 to 0.3, above the data, as an end at σ = 0 hides the order.

    Each second step is twice as long as its neighbours. On even steps, or steps that become even as they shrink, a
    plan whose weights are those of even steps would pass.
    """
    lengths = torch.linspace(1.35, 0.65, steps, dtype=torch.float64)
    lengths[1::2] *= 2
    place = lengths.cumsum(0) / lengths.sum()
    place[-1] = 1.0
    return START + (END - START) * torch.cat([torch.zeros(1, dtype=torch.float64), place])
