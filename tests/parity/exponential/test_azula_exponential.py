"""azula's Adams–Bashforth samplers, in float64, on grids that end above 0."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trilemma import lookup

azula = pytest.importorskip("azula.sample")


@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ("deis:points={n},variable=rho", "zABSampler"),
        ("deis:points={n}", "zEABSampler"),
        ("deis:points={n},prediction=x0", "xEABSampler"),
    ],
)
@pytest.mark.parametrize("points", [1, 2, 3])
def test_agrees(spec, peer, points, process, sigmas, start, exact_x0, run_plan) -> None:
    times = sigmas[:-1] / 10

    class Exact:
        def schedule(self, t):
            return torch.ones_like(t), 10 * t

        def __call__(self, z, t, **_):
            return SimpleNamespace(mean=exact_x0(z, 1.0, float(10 * t)))

    sampler = getattr(azula, peer)(Exact(), order=points, steps=len(times) - 1, silent=True)
    sampler.timesteps = times
    theirs = sampler(start.clone())
    plan = lookup.build("sampler", spec.format(n=points))[0].plan(process, times)
    assert float((run_plan(plan, process, start) - theirs).abs().max()) < 1e-9
