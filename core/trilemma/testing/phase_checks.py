"""Checks of a sampler that declares to run on two components."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trilemma.engine.drawing import sample
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import matrix
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.law import state_law
from trilemma.testing.local import local_times
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.orders import SLACK, affine_map, order_in_phase_space, phase_law_error_of_sample

MEAN, VARIANCE, DRAWN, DEVIATIONS = 0.4, 0.25, 4096, 6.0
# All steps together may be off by so many times the tolerance of one; the path is longer than with one component.
TOLERANCES = 30.0
# Steps, and the relative error allowed to them and to the step onto the data.
FINE, ALLOWED = 100, 0.02


def phase_checks(sampler: Sampler) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    if not sampler.has_plan:
        if sampler.tolerance is not None:
            yield "in phase space: tolerance is kept", lambda: _tolerance(sampler)
        if sampler.deterministic:
            yield "in phase space: every parameterization, the data's law", lambda: _law_of_samples(sampler)
        return
    yield "in phase space: plan pays its nfe", lambda: _nfe(sampler)
    yield "in phase space: noise as declared", lambda: _noise(sampler)
    yield "in phase space: order", lambda: _order(sampler)
    yield "in phase space: every parameterization, marginals by Monte Carlo", lambda: _marginals(sampler)


def _nfe(sampler: Sampler) -> str:
    for steps in (1, 2, 7) if isinstance(sampler.grid, str) else (len(sampler.grid),):
        rows = len(sampler.plan(PhaseProcess(), sampler.times(PhaseProcess(), steps)).rows)
        assert rows == sampler.nfe(steps), f"{steps} steps: {rows} rows, nfe says {sampler.nfe(steps)}"
    return f"nfe(7) = {sampler.nfe(7)}"


def _noise(sampler: Sampler) -> str:
    noisy = any(any(matrix(row.C, 2)) for row in sampler.plan(PhaseProcess(), local_times(7)).rows)
    assert noisy != sampler.deterministic, (
        f"declares deterministic={sampler.deterministic}, but the plan {'adds' if noisy else 'adds no'} noise"
    )
    return "noise" if noisy else "no noise"


def _order(sampler: Sampler) -> str:
    found = order_in_phase_space(sampler)
    assert found.order >= sampler.order - SLACK, f"declares order {sampler.order}, measured {found}"
    return f"declares {sampler.order}, measured {found}"


def _tolerance(sampler: Sampler) -> str:
    assert sampler.tolerance is not None
    off = phase_law_error_of_sample(sampler, PhaseProcess()) / sampler.tolerance
    assert off <= TOLERANCES, f"the law is {off:.1f} tolerances off that of the flow"
    return f"declares {sampler.tolerance:g}, {off:.2g} of it off"


def _law_of_samples(sampler: Sampler) -> str:
    """The law that networks which put out x0, ε and the score turn the exact one at the first time into."""
    process, steps = PhaseProcess(), FINE if isinstance(sampler.grid, str) else len(sampler.grid)
    mu, cov = process.moments(sampler.times(process, steps)[0])
    cov, worst = VARIANCE * mu[:, None] * mu + cov, 0.0
    for name in ("eps", "score", "x0"):
        model = GaussianMixtureDenoiser(process, (MEAN,), VARIANCE, parameterization=name)

        def drawn(z: Tensor, model: GaussianMixtureDenoiser = model) -> Tensor:
            return sample(model, sampler=sampler, steps=steps, latent=z, dtype=torch.float64).samples

        b, A = affine_map(drawn)
        mean, variance = (A @ mu * MEAN + b)[0], (A @ cov @ A.mT)[0, 0]
        off = max(abs(float(mean) - MEAN), abs(float(variance) - VARIANCE))
        assert off < ALLOWED, f"from a network that puts out {name} the position's moments are {off:.2g} off"
        worst = max(worst, off)
    return f"mean and variance {worst:.2g} off"


def _marginals(sampler: Sampler) -> str:
    """Many samples of networks that put out x0, ε and the score, through the fused step, against the exact law."""
    process, steps = PhaseProcess(), 12 if isinstance(sampler.grid, str) else len(sampler.grid)
    times = sampler.times(process, steps)
    mean, cov = state_law(sampler.plan(process, times), process, MEAN, VARIANCE)
    mu, start = process.moments(times[0])
    factor = torch.linalg.cholesky(VARIANCE * mu[:, None] * mu + start)
    noise = torch.randn(DRAWN, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(20))
    latent = (MEAN * mu + noise @ factor.mT).view(DRAWN, 2, 1, 1)
    worst, first = 0.0, None
    for name in ("eps", "score", "x0"):
        model = GaussianMixtureDenoiser(process, (MEAN,), VARIANCE, parameterization=name)
        drawn = sample(
            model,
            DRAWN,
            sampler=sampler,
            steps=steps,
            latent=latent,
            seed=1,
            dtype=torch.float64,
            batch_size=DRAWN,
            trajectory=True,
        ).trajectory
        assert drawn is not None
        drawn = drawn[-1].view(DRAWN, 2)
        first = drawn if first is None else first
        apart = float((drawn - first).abs().max() / (1 + first.abs().max()))
        assert apart < 1e-2, f"a network that puts out {name} gives samples {apart:.2g} away, relatively"
        spread = cov.diagonal().sqrt()
        off = float(((drawn.mean(0) - mean).abs() / spread).max()) * math.sqrt(DRAWN)
        wide = float((drawn.var(0) / cov.diagonal() - 1).abs().max()) / math.sqrt(2 / DRAWN)
        assert max(off, wide) < DEVIATIONS, (
            f"mean and variance of {DRAWN} samples are {off:.1f} and {wide:.1f} standard errors off"
        )
        worst = max(worst, off, wide)
    return f"{DRAWN} samples, {worst:.1f} standard errors off"
