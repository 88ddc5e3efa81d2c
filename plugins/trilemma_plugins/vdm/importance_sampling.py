"""Importance sampling of the time in the diffusion term: drawn times, and the weights that keep the mean right."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import spaced_times
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.vdm.bound import discrete_weight

_NODES = 513


def draw_continuous_times(
    process: Process, interval: Tensor, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws t [B] in [t₀, t₁], uniform in the clock Λ, and returns them with the weights [B] of ‖ε_K − ε̂_K‖², float64,

        dΛ = (G Gᵀ)_KK/σ_K² dt,     KL of the paths = ½ ∫ E‖ε_K − ε̂_K‖² dΛ,

    in which every moment has the same weight; noise enters the last component alone. With one component Λ = γ. With
    several, Λ is tabulated, and the weights correct for the interpolation between its nodes, so that the mean is exact.
    """
    u = uniform_draws(batch, generator)
    if process.components == 1:
        low, high = -process.log_snr(interval)
        return process.time_of_log_snr(-(low + (high - low) * u)), (high - low).expand(batch) / 2
    first, last = interval.log()
    # Nodes in log t.
    places = torch.linspace(float(first), float(last), _NODES, dtype=torch.float64)
    heights = _rate(process, places.exp()) * places.exp()
    cells = (heights[1:] + heights[:-1]) / 2
    shares = cells / cells.sum()
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), shares.cumsum(0)])
    cell = (torch.searchsorted(edges, u, right=True) - 1).clamp(0, _NODES - 2)
    width = places[1] - places[0]
    t = (places[cell] + width * ((u - edges[cell]) / shares[cell])).exp()
    return t, _rate(process, t) * t * width / shares[cell] / 2


def draw_discrete_times(
    process: Process, interval: Tensor, batch: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws t [B] of the bound of `steps` steps in [t₀, t₁], one component, and returns them with the weights [B]."""
    if process.table is None:
        first, last = interval.tolist()
        times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    else:
        times = spaced_times(process, steps + 1, "linspace")[:-1].flip(0)
    gamma = -process.log_snr(times)
    drawn = (uniform_draws(batch, generator) * steps).long()
    return times[drawn + 1], discrete_weight(gamma[drawn], gamma[drawn + 1], steps)


def _rate(process: Process, t: Tensor) -> Tensor:
    """Returns dΛ/dt."""
    G = process.diffusion(t)
    return (G @ G.mT)[..., -1, -1] / process.last_component(t)[2].square()
