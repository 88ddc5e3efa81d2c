"""azula's Adams–Bashforth samplers, in float64, on grids that end above 0."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trilemma import lookup


@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ("deis:points={n},variable=rho", "zABSampler"),
        ("deis:points={n}", "zEABSampler"),
        ("deis:points={n},prediction=x0", "xEABSampler"),
    ],
)
@pytest.mark.parametrize("points", [1, 2, 3])
def test_agrees(azula, spec, peer, points, process, sigmas, start, exact_x0, run_plan) -> None:
    times = sigmas[:-1] / 10

    class Exact:
        def schedule(self, t):
            return torch.ones_like(t), 10 * t

        def __call__(self, z, t, **_):
            return SimpleNamespace(mean=exact_x0(z, 1.0, float(10 * t)))

    on_grid = type(peer, (getattr(azula, peer),), {"timesteps": times})
    sampler = on_grid(Exact(), order=points, steps=len(times) - 1, silent=True)
    theirs = sampler(start.clone())
    plan = lookup.build("sampler", spec.format(n=points))[0].plan(process, times)
    assert float((run_plan(plan, process, start) - theirs).abs().max()) < 1e-9


def test_their_rosenbrock_step_mixes_two_levels(azula, process, exact_x0) -> None:
    """REAB scales its integral by √(α_s² + σ_t²) in place of √(α_s² + σ_s²): first order, whatever it declares."""
    start, errors = torch.full((1,), 6.0, dtype=torch.float64), {}
    fine = torch.linspace(0.9, 0.3, 2001, dtype=torch.float64)

    class Exact:
        def schedule(self, t):
            return torch.ones_like(t), 10 * t

        def __call__(self, z, t, **_):
            return SimpleNamespace(mean=exact_x0(z, 1.0, float(10 * t)))

    def drawn(name, times):
        on_grid = type(name, (getattr(azula, name),), {"timesteps": times})
        sampler = on_grid(Exact(), order=2, steps=len(times) - 1, silent=True)
        return float(sampler(start.clone()))

    truth = drawn("xEABSampler", fine)
    for steps in (40, 160):
        times = torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64)
        errors[steps] = abs(drawn("REABSampler", times) - truth), abs(drawn("xEABSampler", times) - truth)
    assert errors[40][0] / errors[160][0] < 4**1.3
    assert errors[40][1] / errors[160][1] > 4**1.7
