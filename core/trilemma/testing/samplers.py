"""Checks of a sampler's mathematics: those of every sampler, and those of what one declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace

import torch

from trilemma import lookup
from trilemma.engine.program import lower
from trilemma.errors import PluginUnavailable, UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau, matrix, vector
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.execution import ExactPrediction, final_states, run_sample
from trilemma.testing.law import sample_law
from trilemma.testing.local import LOCAL, local_times, startable
from trilemma.testing.orders import (
    SLACK,
    Measured,
    errors_in_tolerances,
    order_along_a_path,
    order_along_the_flow,
    order_in_law,
    order_in_time,
)
from trilemma.testing.outcome import Skipped
from trilemma.testing.phase_checks import phase_checks
from trilemma.testing.running import running_checks
from trilemma.testing.scalar import GAUSSIAN, MIXTURE, ScalarMixture, alpha_sigma

Checks = Iterator[tuple[str, Callable[[], str]]]
STEPS = (1, 2, 7, 50)
# All steps together may be off by so many times the tolerance of one.
TOLERANCES = 10.0
POINT = ScalarMixture((0.7,), (0.0,), (1.0,))


def sampler_checks(sampler: Sampler) -> Checks:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    yield "config round trip", lambda: _round_trip(sampler)
    if sampler.components is None or 2 in sampler.components:
        yield from phase_checks(sampler)
    if sampler.components is not None and 1 not in sampler.components:
        return
    yield "times fall strictly to 0", lambda: _times(sampler)
    if sampler.has_plan:
        yield "plan pays its nfe", lambda: _nfe(sampler)
        yield "plan is finite", lambda: _finite(sampler)
        yield "history is filled before it is read", lambda: _history(sampler)
        yield "memory does not grow with the steps", lambda: _memory(sampler)
        yield "noise as declared", lambda: _noise(sampler)
    else:
        yield "noise as declared", lambda: _noise_of_sample(sampler)
    yield "inputs are left alone", lambda: _inputs(sampler)
    if "point" in sampler.exact:
        yield "exact on a point", lambda: _exact(sampler, POINT)
    if "gaussian" in sampler.exact:
        yield "exact on a Gaussian", lambda: _exact(sampler, GAUSSIAN)
    # A sampler of order 0 claims no limit.
    if sampler.order > 0:
        yield "a point mass is found", lambda: _point_mass(sampler)
        yield from _order_checks(sampler)
    if sampler.strong_order is not None:
        declared = sampler.strong_order
        yield "strong order", lambda: _order(declared, order_along_a_path(sampler, declared))
        yield "strong order in time", lambda: _order(declared, order_in_time(sampler, declared))
    yield from running_checks(sampler)


def _order_checks(sampler: Sampler) -> Checks:
    if sampler.tolerance is not None:
        yield "tolerance is kept", lambda: _tolerance(sampler)
    elif sampler.deterministic:
        yield "order on a Gaussian", lambda: _order(sampler.order, order_along_the_flow(sampler, GAUSSIAN))
        yield "order on a mixture", lambda: _order(sampler.order, order_along_the_flow(sampler, MIXTURE))
    else:
        yield "weak order", lambda: _order(sampler.order, order_in_law(sampler))


def _round_trip(sampler: Sampler) -> str:
    """The options a sampler shows make the same sampler again."""
    assert is_dataclass(sampler), f"{type(sampler).__name__} is no dataclass; its fields are its options"
    shown = {entry.name: getattr(sampler, entry.name) for entry in fields(sampler) if entry.init}
    again = type(sampler)(**shown)
    assert again == sampler, f"{again} is made from the fields of {sampler}"
    spec = lookup.describe("sampler", sampler)
    try:
        built = lookup.build("sampler", spec)[0]
    except (PluginUnavailable, UsageError):
        # The sampler is not registered, or has an option that no spec can hold.
        return "from its fields"
    if type(built) is type(sampler):
        assert built == sampler, f"{spec} is read as {built}"
    return spec


def _times(sampler: Sampler) -> str:
    counts = STEPS if isinstance(sampler.grid, str) else (len(sampler.grid),)
    for steps in counts:
        times = sampler.times(AngleProcess(), steps)
        assert times.dtype == torch.float64, f"times are {times.dtype}, not float64"
        assert len(times) == steps + 1, f"{steps} steps gave {len(times)} times, not {steps + 1}"
        assert bool((times.diff() < 0).all()), f"times of {steps} steps do not fall strictly"
        assert float(times[-1]) == 0, f"times of {steps} steps end at {float(times[-1]):g}, not 0"
    return f"steps {counts}"


def _plans(sampler: Sampler) -> Iterator[tuple[int, Process, Tableau]]:
    """From the prior to the data in one step and more, α_1 = 0 included where the sampler claims it."""
    for process in startable(sampler):
        for steps in STEPS[:3] if isinstance(sampler.grid, str) else (len(sampler.grid),):
            yield steps, process, sampler.plan(process, sampler.times(process, steps))


def _nfe(sampler: Sampler) -> str:
    for steps, _, tableau in _plans(sampler):
        calls = sum(tableau.evaluated())
        assert calls == sampler.nfe(steps), (
            f"{steps} steps: {calls} evaluations, nfe says {sampler.nfe(steps)}"
        )
    return f"nfe(7) = {sampler.nfe(7)}"


def _finite(sampler: Sampler) -> str:
    for steps, process, tableau in _plans(sampler):
        for number, row in enumerate(tableau.rows):
            values = torch.tensor(_numbers(row, tableau.components))
            assert bool(values.isfinite().all()), (
                f"row {number + 1} of {steps} steps under {type(process).__name__} is not finite"
            )
    return "from α = 0 and onto σ = 0"


def _numbers(row: Row, components: int) -> list[float]:
    terms = [entry for _, c in row.B for entry in vector(c, components)]
    terms += [entry for _, c in row.D for entry in matrix(c, components)]
    return [*matrix(row.A, components), *matrix(row.C, components), *terms]


def _history(sampler: Sampler) -> str:
    furthest = 0
    for _, _, tableau in _plans(sampler):
        for number, row in enumerate(tableau.rows):
            assert all(0 <= lag <= number for lag, _ in row.B), (
                f"row {number + 1} reads the prediction of a row before the first"
            )
            assert all(0 <= back <= number for back in (row.base, *[back for back, _ in row.D])), (
                f"row {number + 1} starts from a state before the first"
            )
            furthest = max([furthest, *(lag for lag, _ in row.B)])
    return f"up to {furthest} rows back"


def _memory(sampler: Sampler) -> str:
    """The engine must keep as many states and predictions for 50 steps as for 25."""
    if not isinstance(sampler.grid, str):
        raise Skipped("its grid has one number of steps")
    process = AngleProcess()
    kept = []
    for steps in (25, 50):
        tableau = sampler.plan(process, local_times(steps))
        program = lower(tableau, tableau.parameterization, process)
        kept.append((program.states, program.history))
    assert kept[0] == kept[1], (
        f"25 steps keep {kept[0][0]} states and {kept[0][1]} predictions, 50 steps {kept[1][0]} and {kept[1][1]}"
    )
    return f"{kept[0][0]} states and {kept[0][1]} predictions"


def _noise(sampler: Sampler) -> str:
    process = AngleProcess()
    noisy = any(any(matrix(row.C, 1)) for row in sampler.plan(process, local_times(7)).rows)
    assert noisy != sampler.deterministic, (
        f"declares deterministic={sampler.deterministic}, but the plan {'adds' if noisy else 'adds no'} noise"
    )
    return "noise" if noisy else "no noise"


def _noise_of_sample(sampler: Sampler) -> str:
    z, times = torch.ones(2, 1, 1, 1, dtype=torch.float64), local_times(7)
    model = MIXTURE.denoiser(AngleProcess())
    low, high = torch.full_like(z, -1), torch.full_like(z, 1)
    first = run_sample(sampler, model, times, z.clone(), lambda _: low.clone())
    second = run_sample(sampler, model, times, z.clone(), lambda _: high.clone())
    noisy = not torch.equal(first, second)
    assert noisy != sampler.deterministic, (
        f"declares deterministic={sampler.deterministic}, but the noise "
        f"{'changes' if noisy else 'does not change'} the samples"
    )
    return "noise" if noisy else "no noise"


def _inputs(sampler: Sampler) -> str:
    process, times = AngleProcess(), local_times(5)
    kept = times.clone()
    if sampler.has_plan:
        sampler.plan(process, times)
        assert torch.equal(times, kept), "plan writes to the times it is given"
        return "times"
    z = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    noise = [torch.full_like(z, 0.1 * k) for k in range(len(times))]
    predict = ExactPrediction(MIXTURE.denoiser(process))
    run_sample(sampler, predict.denoiser, times, z, lambda step: noise[step], predict)
    assert torch.equal(times, kept), "sample writes to the times it is given"
    assert torch.equal(z, torch.ones_like(z)), "sample writes to the states it is given"
    assert not predict.changed, "sample writes to the predictions it is given"
    assert all(torch.equal(entry, torch.full_like(z, 0.1 * k)) for k, entry in enumerate(noise)), (
        "sample writes to the noise it is given"
    )
    return "states, times, predictions and noise"


def _law(sampler: Sampler, process: Process, data: ScalarMixture, steps: int) -> tuple[float, float]:
    """Mean and standard deviation of the samples of one Gaussian, less those of its marginal."""
    times = local_times(steps)
    (alpha,), (sigma,) = alpha_sigma(process, times[-1:])
    mean, variance = sample_law(sampler.plan(process, times), process, data.means[0], data.variances[0])
    spread = math.sqrt(alpha**2 * data.variances[0] + sigma**2)
    return mean - alpha * data.means[0], math.sqrt(variance) - spread


def _along_the_flow(sampler: Sampler, process: Process, data: ScalarMixture, steps: int) -> list[float]:
    """States that start with ε, less those that the flow takes them to."""
    times = local_times(steps)
    alpha, sigma = alpha_sigma(process, times[[0, -1]])
    start, end = (
        [a * data.means[0] + math.sqrt(a * a * data.variances[0] + s * s) * e for e in (-1.0, 0.5, 2.0)]
        for a, s in zip(alpha, sigma, strict=True)
    )
    return [a - b for a, b in zip(final_states(sampler, process, data, times, start), end, strict=True)]


def _exact(sampler: Sampler, data: ScalarMixture) -> str:
    worst = 0.0
    for process in LOCAL:
        for steps in (1, 2, 5):
            errors: Sequence[float]
            if sampler.has_plan:
                errors = _law(sampler, process, data, steps)
            elif sampler.deterministic:
                errors = _along_the_flow(sampler, process, data, steps)
            else:
                raise Skipped("the law of its samples is known exactly only for a sampler with a plan")
            error = max(map(abs, errors))
            assert error < 1e-7, (
                f"{steps} steps under {type(process).__name__} are {error:.2g} off; it declares exact={sampler.exact}"
            )
            worst = max(worst, error)
    return f"to {worst:.1g}"


def _point_mass(sampler: Sampler) -> str:
    """Checks that, where all data are one point, the samples tend to its noised states."""
    worst = 0.0
    for process in LOCAL:
        if sampler.has_plan:
            mean, spread = _law(sampler, process, POINT, 64)
            error = max(abs(mean), abs(spread))
        elif sampler.deterministic:
            error = max(map(abs, _along_the_flow(sampler, process, POINT, 64)))
        else:
            raise Skipped("the law of its samples is known exactly only for a sampler with a plan")
        assert error < 0.05, (
            f"64 steps under {type(process).__name__} end {error:.2g} away from the only point"
        )
        worst = max(worst, error)
    return f"to {worst:.1g} in 64 steps"


def _tolerance(sampler: Sampler) -> str:
    """The error along the flow is of the size of the tolerance, and falls with it."""
    assert sampler.tolerance is not None
    worst = 0.0
    for tolerance in (sampler.tolerance, sampler.tolerance / 100):
        off = errors_in_tolerances(replace(sampler, tolerance=tolerance))  # type: ignore[type-var]
        for where, error in off.items():
            assert error < TOLERANCES, (
                f"at tolerance {tolerance:g} the end is {error:.3g} of it off on {where}"
            )
            worst = max(worst, error)
    return f"at most {worst:.1f} tolerances off"


def _order(declared: float, measured: Iterator[Measured]) -> str:
    found = list(measured)
    worst = min(found, key=lambda entry: entry.order)
    assert worst.order >= declared - SLACK, f"declares order {declared:g}, measured {worst}"
    return f"declares {declared:g}, measured {worst}"
