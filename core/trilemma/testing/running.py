"""Checks of a sampler in the engine: batches, seeds, dtypes, strides, evaluations, and what can go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from trilemma.engine.drawing import sample
from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.sampler import Sampler
from trilemma.testing.compiling import loop_compiles
from trilemma.testing.counting import Counting, Spoiled
from trilemma.testing.empty import without_a_sample
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.law import sample_law
from trilemma.testing.local import startable
from trilemma.testing.outcome import Skipped
from trilemma.testing.watching import Watch

MEAN, VARIANCE = 0.3, 0.25
DRAWN = 4096
# Standard deviations allowed to a normal: two tests reject a correct sampler in 4 of 10⁸ seeds.
DEVIATIONS = 5.6

# Samples where their law has no closed form; fewer where each has steps of its own.
MANY, FEW = 20_000, 1000
# Steps of those samples.
FINE = 256
# A bias of 1 and 5.03 of a standard normal: two tests reject a correct sampler in 1 of 10⁶ seeds.
ALLOWED = 6.1


def running_checks(sampler: Sampler) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check."""
    steps = 7 if isinstance(sampler.grid, str) else len(sampler.grid)
    yield "nfe and times of the network's calls", lambda: _calls(sampler, steps)
    yield "same bits again and in every batch", lambda: _batches(sampler, steps)
    yield "marginals by Monte Carlo", lambda: _marginals(sampler, steps)
    yield "latents are left alone, in any strides", lambda: _latents(sampler, steps)
    yield "float32, bfloat16 and float64", lambda: _dtypes(sampler, steps)
    if isinstance(sampler.grid, str):
        yield "one step and one sample", lambda: _one(sampler)
    yield "an empty batch gives none", lambda: without_a_sample(sampler, steps)
    yield "NaN is named", lambda: _nan(sampler, steps)
    yield "compiles into one graph", lambda: loop_compiles(sampler)
    if sampler.has_plan:
        yield "no host read and no allocation in the loop", lambda: _loop(sampler, steps)


def _model(variance: float = VARIANCE) -> GaussianDenoiser:
    return GaussianDenoiser(AngleProcess(), MEAN, variance)


def _draw(sampler: Sampler, steps: int, model: Denoiser | None = None, **options: object) -> Tensor:
    options = {"n": 1, "seed": 1, "dtype": torch.float64, **options}
    return sample(model or _model(), sampler=sampler, steps=steps, **options).samples  # type: ignore[arg-type]


def _calls(sampler: Sampler, steps: int) -> str:
    model = Counting(_model())
    times = sampler.times(model.process, steps).tolist()
    drawn = sample(model, 3, sampler=sampler, steps=steps, dtype=torch.float64)
    calls = len(model.times)
    if sampler.has_plan:
        assert calls == sampler.nfe(steps), f"{calls} calls of the network, nfe says {sampler.nfe(steps)}"
    assert drawn.provenance["nfe"] == calls, f"{calls} calls, the provenance says {drawn.provenance['nfe']}"
    assert set(model.batches) == {3}, f"calls with {sorted(set(model.batches))} states for 3 samples"
    first, begins = model.times[0], times[0]
    if sampler.has_plan:
        tableau = sampler.plan(model.process, sampler.times(model.process, steps))
        assert math.isclose(tableau.rows[0].t, begins, abs_tol=1e-6), (
            f"the first row is at t = {tableau.rows[0].t:g}, the grid begins at {begins:g}"
        )
        # Rows without an evaluation may take the state to where the network is asked first.
        evaluated = [row.t for row, asked in zip(tableau.rows, tableau.evaluated(), strict=True) if asked]
        begins = evaluated[0]
    assert math.isclose(first, begins, abs_tol=1e-6), (
        f"the first call is at t = {first:g}, the grid begins at {begins:g}"
    )
    inside = 0 < min(model.times) <= max(model.times) <= times[0] + 1e-6
    assert inside, (
        f"calls at times from {min(model.times):g} to {max(model.times):g}, outside (0, {times[0]:g}]"
    )
    if sampler.has_plan:
        # fresh noise may lift a state above its time, as churn does
        highest = times[:-1] if sampler.deterministic else [times[0], *times[:-2]]
        silent = {row.t for row in tableau.rows} - set(evaluated)
        asked = [(t, high) for t, high in zip(times[:-1], highest, strict=True) if t not in silent]
        firsts = [_first(model.times, t, high) for t, high in asked]
        missed = [t for (t, _), first in zip(asked, firsts, strict=True) if first is None]
        assert not missed, f"the network is never asked at t = {missed[0]:g}, a time of the grid"
        assert firsts == sorted(cast(list[int], firsts)), "the times of the grid are not visited in order"
    return f"{calls} calls for {steps} steps"


def _first(calls: list[float], low: float, high: float) -> int | None:
    """Number of the first call between two times."""
    return next((k for k, seen in enumerate(calls) if low - 1e-6 <= seen <= high + 1e-6), None)


def _batches(sampler: Sampler, steps: int) -> str:
    whole = _draw(sampler, steps, n=5)
    assert bool(whole.isfinite().all()), "samples are not finite"
    assert torch.equal(whole, _draw(sampler, steps, n=5)), "the same seed gave other samples"
    assert torch.equal(whole, _draw(sampler, steps, n=5, batch_size=2)), (
        "the same seed gave other samples in other batches"
    )
    alone = _draw(sampler, steps, indices=[3])
    assert torch.equal(whole[3:4], alone), "a sample is another one when it is drawn alone"
    return "alone and in batches of 5 and 2"


def _marginals(sampler: Sampler, steps: int) -> str:
    """Mean and variance of many samples against the exact law of the plan."""
    if not sampler.has_plan:
        return _marginals_of_data(sampler)
    model = _model()
    times = sampler.times(model.process, steps)
    tableau = sampler.plan(model.process, times)
    if tableau.clip is not None:
        raise Skipped("a clip has no law in closed form")
    mean, variance = sample_law(tableau, model.process, MEAN, VARIANCE)
    alpha, sigma = (float(level[0]) for level in model.process.alpha_sigma(times))
    generator = torch.Generator().manual_seed(20)
    start = torch.randn(DRAWN, 1, 1, 1, dtype=torch.float64, generator=generator)
    start = alpha * MEAN + math.sqrt(alpha**2 * VARIANCE + sigma**2) * start
    drawn = _draw(sampler, steps, model, latent=start, batch_size=DRAWN)
    off = abs(float(drawn.mean()) - mean) / math.sqrt(variance / DRAWN)
    spread = abs(float(drawn.var()) / variance - 1) / math.sqrt(2 / DRAWN)
    assert off < DEVIATIONS, f"the mean of {DRAWN} samples is {off:.1f} standard errors off"
    assert spread < DEVIATIONS, f"the variance of {DRAWN} samples is {spread:.1f} standard errors off"
    return f"{DRAWN} samples, {max(off, spread):.1f} standard errors off; a false alarm in 2·10⁷ seeds"


def _marginals_of_data(sampler: Sampler) -> str:
    """Mean and variance of many samples in many small steps against those of the data, for a sampler without a plan.

    A bias of one standard error is allowed, so that a correct sampler of order 1 is not rejected.
    """
    if not isinstance(sampler.grid, str):
        raise Skipped("its grid cannot be made fine, and the law of its samples is known of a plan only")
    if not sampler.order:
        raise Skipped("it declares order 0: its samples need not tend to the data")
    model = _model()
    count = MANY if sampler.tolerance is None else FEW
    generator = torch.Generator().manual_seed(20)
    start = torch.randn(count, 1, 1, 1, dtype=torch.float64, generator=generator)
    alpha, sigma = (
        float(level[0]) for level in model.process.alpha_sigma(sampler.times(model.process, FINE))
    )
    start = alpha * MEAN + math.sqrt(alpha**2 * VARIANCE + sigma**2) * start
    drawn = _draw(sampler, FINE, model, latent=start, batch_size=count)
    off = abs(float(drawn.mean()) - MEAN) / math.sqrt(VARIANCE / count)
    spread = abs(float(drawn.var()) / VARIANCE - 1) / math.sqrt(2 / count)
    assert off < ALLOWED, f"the mean of {count} samples is {off:.1f} standard errors off that of the data"
    assert spread < ALLOWED, (
        f"the variance of {count} samples is {spread:.1f} standard errors off that of the data"
    )
    return f"{count} samples, {max(off, spread):.1f} standard errors off; a false alarm in 10⁶ seeds"


def _latents(sampler: Sampler, steps: int) -> str:
    model = GaussianDenoiser(AngleProcess(), MEAN, VARIANCE, shape=(1, 2, 3))
    wide = torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    strided = wide.mT[:, :, ::2]
    kept = wide.clone()
    found = _draw(sampler, steps, model, latent=strided)
    assert torch.equal(wide, kept), "the latents that were given are changed"
    assert torch.equal(found, _draw(sampler, steps, model, latent=strided.contiguous())), (
        "latents that are not contiguous give other samples"
    )
    return "contiguous and not"


def _dtypes(sampler: Sampler, steps: int) -> str:
    exact = _draw(sampler, steps, n=4)
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.5)):
        found = _draw(sampler, steps, n=4, dtype=dtype)
        assert found.dtype == dtype, f"a state in {dtype} gave samples in {found.dtype}"
        error = float((found.double() - exact).abs().max())
        assert error < tolerance, f"samples in {dtype} are {error:.2g} away from those in float64"
    return "they agree"


def _one(sampler: Sampler) -> str:
    for process in startable(sampler):
        for parameterization in ("x0", "v"):
            model = GaussianDenoiser(process, MEAN, VARIANCE, parameterization)
            drawn = _draw(sampler, 1, model)
            assert drawn.shape == (1, 1, 1, 1), f"one sample has shape {tuple(drawn.shape)}"
            assert float(drawn.abs().max()) < 20, (
                f"one step under {type(process).__name__} gives {float(drawn):.2g}"
            )
    return "from every prior"


def _nan(sampler: Sampler, steps: int) -> str:
    if steps < 2:
        raise Skipped("its grid has one step")
    model = Spoiled(_model(), row=1)
    message = _error(lambda: _draw(sampler, steps, model, indices=[10, 11, 12]))
    assert message, "a network that answers NaN gave samples"
    assert "not finite" in message, f"the error does not say what is wrong: {message}"
    assert "sample 11" in message, f"the error does not say where: {message}"
    return "with its sample"


def _error(call: Callable[[], object]) -> str:
    """Returns the message of the error that a call raises; "" where it raises none."""
    try:
        call()
    except TrilemmaError as error:
        return str(error)
    return ""


def _loop(sampler: Sampler, steps: int) -> str:
    model = _model()
    with Watch(model) as watch:
        _draw(sampler, steps, model, n=2)
    stray = sorted(set(watch.loop) - {"network", "linear_step"})
    assert not stray, f"the loop calls {', '.join(stray)}"
    rows = watch.loop.count("linear_step")
    tableau = sampler.plan(model.process, sampler.times(model.process, steps))
    # A row without an evaluation before the first call is not in the record.
    each = [["network", "linear_step"] if evaluated else ["linear_step"] for evaluated in tableau.evaluated()]
    expected = [call for calls in each for call in calls]
    assert watch.loop == expected[-len(watch.loop) :], "a row is more than one call and one fused step"
    return f"{watch.evaluations} calls of the network and {rows} fused steps"
