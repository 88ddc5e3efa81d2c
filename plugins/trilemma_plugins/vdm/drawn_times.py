"""Times to estimate the diffusion term at, and the weight of ‖ε_K − ε̂_K‖² there, so that its mean is the term."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import spaced_times
from trilemma_plugins.vdm.bound import discrete_weight
from trilemma_plugins.vdm.times import spread_times

_NODES = 513


def continuous_times(
    process: Process, between: Tensor, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """t and weights [B], float64, in continuous time between t₀ and t₁: uniform in the clock Λ,

        dΛ = (G Gᵀ)_KK/σ_K² dt,     KL of the paths = ½ ∫ E‖ε_K − ε̂_K‖² dΛ,

    in which every moment weighs the same, noise entering the last component alone. One component has Λ = γ. Of several
    Λ is tabulated, and what lies between its nodes is made up for in the weights, so that the mean is exact.
    """
    u = spread_times(batch, generator)
    if process.components == 1:
        low, high = -process.log_snr(between)
        return process.time_of_log_snr(-(low + (high - low) * u)), (high - low).expand(batch) / 2
    first, last = between.log()
    places = torch.linspace(float(first), float(last), _NODES, dtype=torch.float64)  # log t
    heights = _rate(process, places.exp()) * places.exp()
    cells = (heights[1:] + heights[:-1]) / 2
    shares = cells / cells.sum()
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), shares.cumsum(0)])
    cell = (torch.searchsorted(edges, u, right=True) - 1).clamp(0, _NODES - 2)
    width = places[1] - places[0]
    t = (places[cell] + width * ((u - edges[cell]) / shares[cell])).exp()
    return t, _rate(process, t) * t * width / shares[cell] / 2


def discrete_times(
    process: Process, between: Tensor, batch: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """t and weights [B], float64, of the bound of `steps` steps between t₀ and t₁; one component."""
    if process.table is None:
        first, last = between.tolist()
        times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    else:
        times = spaced_times(process, steps + 1, "linspace")[:-1].flip(0)
    gamma = -process.log_snr(times)
    drawn = (spread_times(batch, generator) * steps).long()
    return times[drawn + 1], discrete_weight(gamma[drawn], gamma[drawn + 1], steps)


def _rate(process: Process, t: Tensor) -> Tensor:
    """dΛ/dt."""
    G = process.diffusion(t)
    return (G @ G.mT)[..., -1, -1] / process.last_component(t)[2].square()
