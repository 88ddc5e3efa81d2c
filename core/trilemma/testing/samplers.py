"""What every sampler must do, and what one that declares something must."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from trilemma.sampler import Sampler
from trilemma.sampling import sample
from trilemma.tableau import Tableau
from trilemma.testing.angle import AngleProcess, exact_ode_solution
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.law import sample_law

STEPS = (1, 2, 7, 50)
_VARIANCE = 0.25
_POINT = 0.7
_SLACK = 0.25  # of a measured order


def sampler_checks(sampler: Sampler) -> Iterator[tuple[str, Callable[[], str]]]:
    """Pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    yield "times fall strictly to 0", lambda: _times(sampler)
    if sampler.has_plan:
        yield "plan is finite and pays its nfe", lambda: _plan(sampler)
        yield "noise as declared", lambda: _noise(sampler)
        yield "law of Gaussian data", lambda: _law(sampler)
    yield "a point mass is found", lambda: _point_mass(sampler)
    yield "samples are reproducible", lambda: _reproducible(sampler)
    if sampler.deterministic:
        yield "order as declared", lambda: _order(sampler)


def _times(sampler: Sampler) -> str:
    for steps in STEPS:
        times = sampler.times(AngleProcess(), steps)
        assert times.dtype == torch.float64, f"times are {times.dtype}, not float64"
        assert len(times) == steps + 1, f"{steps} steps gave {len(times)} times, not {steps + 1}"
        assert bool((times.diff() < 0).all()), f"times of {steps} steps do not fall strictly"
        assert float(times[-1]) == 0, f"times of {steps} steps end at {float(times[-1]):g}, not 0"
    return f"steps {STEPS}"


def _planned(sampler: Sampler, steps: int) -> Tableau:
    process = AngleProcess()
    return sampler.plan(process, sampler.times(process, steps))


def _plan(sampler: Sampler) -> str:
    for steps in STEPS:
        rows = _planned(sampler, steps).rows
        assert len(rows) == sampler.nfe(steps), (
            f"{steps} steps: {len(rows)} rows, nfe says {sampler.nfe(steps)}"
        )
        for number, row in enumerate(rows):
            values = torch.tensor([row.A, row.C, *(coefficient for _, coefficient in row.B)])
            assert bool(values.isfinite().all()), f"row {number} of {steps} steps is not finite"
            assert all(lag <= number for lag, _ in row.B), f"row {number} looks back before the first"
            assert row.base <= number, f"row {number} starts before the first"
    return f"nfe(50) = {sampler.nfe(50)}"


def _noise(sampler: Sampler) -> str:
    noisy = any(row.C != 0 for row in _planned(sampler, 7).rows)
    assert noisy != sampler.deterministic, (
        f"declares deterministic={sampler.deterministic}, but the plan {'adds' if noisy else 'adds no'} noise"
    )
    return "noise" if noisy else "no noise"


def _law(sampler: Sampler) -> str:
    """The variance of the samples of N(0, s²), exact for a plan, tends to s² at the declared order."""

    def error(steps: int) -> float:
        process = AngleProcess()
        times = sampler.times(process, steps)
        _, variance = sample_law(sampler.plan(process, times), process, 0.0, _VARIANCE)
        return abs(variance - _VARIANCE)

    errors = [error(steps) for steps in (64, 128)]
    assert errors[1] < 0.1 * _VARIANCE, (
        f"128 steps give the variance an error of {errors[1]:.2g} of {_VARIANCE}"
    )
    if errors[1] < 1e-10:
        return "exact"
    found = math.log2(errors[0] / errors[1])
    assert found > sampler.order - _SLACK, f"declares order {sampler.order}, the variance has {found:.2f}"
    return f"the variance converges at order {found:.2f}"


def _point_mass(sampler: Sampler) -> str:
    """Where all data are one point, every sample is that point."""
    model = GaussianDenoiser(AngleProcess(), _POINT, 0.0)
    drawn = sample(model, 8, sampler=sampler, steps=128, seed=0, dtype=torch.float64).samples
    error = float((drawn - _POINT).abs().max())
    assert error < 0.05, f"128 steps end {error:.2g} away from the only point there is"
    return "exactly" if error < 1e-9 else f"to {error:.1g} in 128 steps"


def _reproducible(sampler: Sampler) -> str:
    model = GaussianDenoiser(AngleProcess(), 0.0, _VARIANCE)
    first = sample(model, 4, sampler=sampler, steps=7, seed=1, dtype=torch.float64).samples
    again = sample(model, 4, sampler=sampler, steps=7, seed=1, dtype=torch.float64, batch_size=3).samples
    assert bool(first.isfinite().all()), "samples are not finite"
    assert torch.equal(first, again), "the same seed gave other samples in other batches"
    return "the same bits in batches of 4 and 3"


def _order(sampler: Sampler) -> str:
    process = AngleProcess()
    model = GaussianDenoiser(process, 0.0, _VARIANCE)
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def error(steps: int) -> float:
        drawn = sample(model, latent=start, sampler=sampler, steps=steps, dtype=torch.float64).samples
        exact = exact_ode_solution(process, start, sampler.times(process, steps)[0], _VARIANCE)
        return float((drawn - exact).abs())

    errors = [error(steps) for steps in (64, 128)]
    assert errors[1] < 1e-1, f"128 steps end {errors[1]:.2g} away from the exact solution"
    if errors[1] < 1e-12:
        return "exact"
    found = math.log2(errors[0] / errors[1])
    assert found > sampler.order - _SLACK, f"declares order {sampler.order}, measured {found:.2f}"
    return f"declares {sampler.order}, measured {found:.2f}"
