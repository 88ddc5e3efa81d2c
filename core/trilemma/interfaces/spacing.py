"""The times a sampler visits on a process: by the place on the clock, by the noise level, or as listed.

    name                                           the S times
    uniform, quadratic, leading, trailing, linspace, squares  places on the clock, see `trilemma.numerics.grids`
    lambda                                         evenly spaced in λ = log(α²/σ²)
    sigma                                          evenly spaced in σ̂ = σ/α
    karras                                         evenly spaced in σ̂^(1/ρ), "karras:rho=7" (2206.00364)
    sigmas:values=[…]                              σ̂ as listed, log-linear between them where S differs (2404.14507)
    (t_1, …, t_S)                                  as listed

Grids by noise level run from the prior to the smallest time a network is asked at. Every grid ends at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from trilemma.errors import UsageError, shown
from trilemma.interfaces.process import Process
from trilemma.numerics import grids
from trilemma.registry.spec import Spec, parse_spec

Grid: TypeAlias = str | Sequence[float]

_OPTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    **{name: {} for name in grids.GRIDS},
    "lambda": {},
    "sigma": {},
    "karras": {"rho": (int, float)},
    "sigmas": {"values": (list, tuple)},
}


def spaced_times(process: Process, steps: int, grid: Grid) -> Tensor:
    """Returns the steps + 1 times of a grid on a process, strictly falling from the prior to 0.

    Returns:
        Tensor [steps + 1], float64.

    Raises:
        UsageError: for an unknown grid, an impossible number of steps, or times that do not fall strictly.
    """
    spec = checked_grid(grid)
    if isinstance(spec, tuple):
        grids.check_steps(None, steps)
        if len(spec) != steps:
            raise UsageError(f"the grid lists {len(spec)} times for {steps} steps; give one time a step")
        return torch.tensor([*spec, 0.0], dtype=torch.float64)
    if spec.name in grids.GRIDS:
        return grids.times(process.table, steps, spec.name, process.smallest_time)
    grids.check_steps(process.table, steps)
    log_snr = _falling_log_snr(process, steps, spec)
    times = torch.cat([process.time_of_log_snr(log_snr), torch.zeros(1, dtype=torch.float64)])
    if float(times[0]) > 1 - 1e-9 or spec.name != "sigmas":
        # The prior lies at exactly 1.
        times[0] = 1.0
    if not bool((times.diff() < 0).all()):
        raise UsageError(f"grid {grid!r} gives {steps} steps times that do not fall; give fewer steps")
    return times


def checked_grid(grid: Grid) -> Spec | tuple[float, ...]:
    """Returns a grid's name and options, or its listed times.

    Raises:
        UsageError: for an unknown name or option, or a list that does not fall strictly within (0, 1].
    """
    if not isinstance(grid, str):
        listed = _listed(grid)
        if (
            not listed
            or not all(a > b for a, b in zip((math.inf, *listed), (*listed, 0.0), strict=True))
            or listed[0] > 1
        ):
            raise UsageError(
                f"grid={shown(grid)} is no list of times; give times that fall strictly from at most 1 to above 0"
            )
        return listed
    try:
        spec = parse_spec(grid)
    except UsageError as error:
        raise UsageError(f"grid={shown(grid)}: {error}") from None
    grids.check_grid(spec.name, tuple(_OPTIONS))
    for key, value in spec.options.items():
        wanted = _OPTIONS[spec.name].get(key)
        if wanted is None:
            known = ", ".join(_OPTIONS[spec.name]) or "none"
            raise UsageError(f"grid {spec.name} has no option {key!r}; its options: {known}")
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise UsageError(
                f"grid {spec.name}: {key}={shown(value)} is of the wrong type; see the page of grids"
            )
    if spec.name == "karras" and not 0 < spec.options.get("rho", 7.0) < math.inf:
        raise UsageError(f"grid karras: rho={shown(spec.options['rho'])} is not positive; rho=7 is usual")
    if spec.name == "sigmas":
        values = spec.options.get("values", ())
        numbers = all(isinstance(value, int | float) for value in values)
        if len(values) < 2 or not numbers or not all(math.inf > a > b > 0 for a, b in pairwise(values)):
            raise UsageError(
                "grid sigmas needs values=[…], at least two noise levels that fall strictly and stay positive"
            )
    return spec


def _listed(grid: object) -> tuple[float, ...]:
    """Returns the numbers of a list; () for anything else."""
    entries: Any = grid.tolist() if hasattr(grid, "tolist") else grid
    try:
        return tuple(float(entry) for entry in entries)
    except (TypeError, ValueError, OverflowError):
        return ()


def _falling_log_snr(process: Process, steps: int, spec: Spec) -> Tensor:
    """λ of the steps times, rising, float64."""
    place = torch.linspace(0, 1, steps, dtype=torch.float64)
    if spec.name == "sigmas":
        values = torch.tensor(spec.options["values"], dtype=torch.float64).log()
        position = place * (len(values) - 1)
        left = position.floor().long().clamp(max=len(values) - 2)
        return -2 * torch.lerp(values[left], values[left + 1], position - left)
    ends = torch.tensor([1.0, process.earliest_time], dtype=torch.float64)
    first, last = process.log_snr(ends)
    # There is no signal at t = 1: the grid is spaced from a little before.
    if first == -math.inf:
        first = process.log_snr(torch.tensor(1 - grids.SMALLEST_TIME, dtype=torch.float64))
    if spec.name == "lambda":
        return torch.lerp(first, last, place)
    rho = {"sigma": 1.0, "karras": float(spec.options.get("rho", 7.0))}[spec.name]
    low, high = (-last / (2 * rho)).exp(), (-first / (2 * rho)).exp()
    return -2 * rho * torch.lerp(high, low, place).log()
