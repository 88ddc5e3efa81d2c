"""Lowered plans: a plan that a sampler made for a process is kept, and costs nothing the next time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.engine.program import Program, lower
from trilemma.engine.resampling import resampled
from trilemma.engine.soundness import blow_up, check_start, unreached_prior
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import checked_plan
from trilemma.registry.manager import registered_name
from trilemma.registry.options import is_value

# Number of plans that are kept.
KEPT = 64
# Largest number of rows of a plan that is kept.
LONGEST = 4096


@dataclass(frozen=True)
class Planned:
    """A sampler's times, and its program where it has a plan.

    Attributes:
        times: [steps + 1], float64.
        program: without guidance; None for a sampler that runs its own `sample`.
        concern: why the plan cannot draw well; "" where nothing is known.
    """

    times: Tensor
    program: Program | None
    concern: str = ""


def planned(
    sampler: Sampler,
    process: Process,
    steps: int,
    parameterization: str,
    strength: float | None = None,
    passes: tuple[int, int] = (1, 1),
    until: float | None = None,
) -> Planned:
    """Returns a sampler's times and its plan for a process, lowered for a network of this parameterization.

    Args:
        sampler: whose plan it is.
        process: the process that it is planned for.
        steps: of the whole grid.
        parameterization: of the network's output.
        strength: largest time that is run; None for all.
        passes: (resample, jump), see `trilemma.engine.resampling`.
        until: the last time, whose states are drawn, in place of that of the data; None for that.

    Raises:
        UsageError: for a strength below all times, a last time above them, or a resampling of a plan with stages or a
            history.
        TrilemmaError: for a plan that cannot be run.
    """
    asked = (sampler, process, steps, parameterization, strength, passes, until)
    if steps <= LONGEST and _is_value(sampler) and _is_value(process):
        return _kept(_written(sampler, process), *asked)
    return _plan(*asked)


def warn(found: Planned, process: Process, starts_at_the_prior: bool) -> None:
    """Warns of a plan that cannot draw well, at each request."""
    concerns = (_of_prior(process) if starts_at_the_prior else "", found.concern)
    for concern in filter(None, concerns):
        warnings.warn(concern, UserWarning, stacklevel=4)


def _plan(
    sampler: Sampler,
    process: Process,
    steps: int,
    parameterization: str,
    strength: float | None,
    passes: tuple[int, int],
    until: float | None,
) -> Planned:
    # A plan made under inference mode could not be used outside of it.
    with torch.inference_mode(False), torch.no_grad():
        times = sampler.times(process, steps)
        if strength is not None:
            times = _below(times, strength)
        if until is not None:
            times = _down_to(times, until)
        name = registered_name(type(sampler), "sampler")
        check_start(name, sampler, process, times)
        if not sampler.has_plan:
            return Planned(times, None)
        evaluations = sampler.nfe(steps) if len(times) == steps + 1 else None
        tableau = checked_plan(sampler.plan(process, times), type(sampler).__name__, evaluations)
        concern = blow_up(name, tableau, process, times)
        if passes[0] > 1:
            tableau = resampled(tableau, process, times, *passes)
        return Planned(times, lower(tableau, parameterization, process, float(times[-1])), concern)


def _written(sampler: Sampler, process: Process) -> tuple[object, ...]:
    """Returns the functions that a plan comes from: a redefined function plans anew."""
    return type(sampler).plan, type(sampler).times, type(process).moments, type(process).transition


@lru_cache(KEPT)
def _kept(written: tuple[object, ...], *asked: Any) -> Planned:
    return _plan(*asked)


def forget() -> None:
    """Forgets all plans that are kept, as a benchmark of planning wants it."""
    _kept.cache_clear()
    _kept_concern.cache_clear()


_kept_concern = lru_cache(KEPT)(unreached_prior)


def _of_prior(process: Process) -> str:
    return _kept_concern(process) if _is_value(process) else unreached_prior(process)


def _below(times: Tensor, strength: float) -> Tensor:
    """The times of a grid up to a strength.

    Raises:
        UsageError: for a strength below all of them.
    """
    kept = times[times <= strength + 1e-9]
    if len(kept) < 2:
        raise UsageError(
            f"strength={strength:g} is below {float(times[-2]):g}, the smallest time of the grid: no step would "
            "be run; give a larger strength or more steps"
        )
    return kept


def _down_to(times: Tensor, until: float) -> Tensor:
    """The times of a grid above a last one, and that one.

    Raises:
        UsageError: for a time above all of them.
    """
    kept = times[times > until + 1e-9]
    if not len(kept):
        raise UsageError(
            f"the last time {until:g} is above {float(times[0]):g}, the first of the grid: no step would be run; give "
            "less noise"
        )
    return torch.cat([kept, kept.new_tensor([until])])


def _is_value(component: object) -> bool:
    """Returns whether equal components always plan alike: they do, except for those that learn."""
    return is_value(component) and not isinstance(component, nn.Module)
