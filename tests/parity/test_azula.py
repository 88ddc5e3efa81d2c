"""azula's DDIM, Euler and Heun samplers, in float64, on grids that end above 0."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trilemma import lookup


@pytest.fixture(params=["ByNoiseLevel", "Pythagorean"])
def noising(request, process, pythagorean):
    return process if request.param == "ByNoiseLevel" else pythagorean


@pytest.mark.parametrize(
    ("spec", "peer", "options"),
    [
        ("ddim", "DDIMSampler", {}),
        ("ddim:eta=0.6", "DDIMSampler", {"eta": 0.36}),  # theirs is a factor of the variance
        ("ddim:eta=1.0", "DDPMSampler", {}),
        ("ddpm", "DDPMSampler", {}),
        ("euler", "EulerSampler", {}),
        ("heun", "HeunSampler", {}),
    ],
)
def test_agrees(spec, peer, options, azula, noising, monkeypatch, sigmas, start, fresh, exact_x0, run_plan):
    times, drawn = sigmas[:-1] / 10, iter(fresh)
    monkeypatch.setattr(azula.torch, "randn_like", lambda _: next(drawn))

    class Exact:
        def schedule(self, t):
            return noising.alpha(t), noising.sigma(t)

        def __call__(self, z, t, **_):
            return SimpleNamespace(mean=exact_x0(z, float(noising.alpha(t)), float(noising.sigma(t))))

    on_grid = type(peer, (getattr(azula, peer),), {"timesteps": times})
    start = float(noising.sigma(times[0])) * start / 9
    theirs = on_grid(Exact(), steps=len(times) - 1, silent=True, **options)(start.clone())
    plan = lookup.build("sampler", spec)[0].plan(noising, times)
    assert float((run_plan(plan, noising, start, fresh) - theirs).abs().max()) < 1e-9


@pytest.mark.parametrize(("spec", "peer"), [("heun", "HeunSampler"), ("deis:points=2", "zEABSampler")])
def test_onto_the_data_theirs_is_not_a_number(spec, peer, azula, process, sigmas, start, exact_x0, run_plan):
    class Exact:
        def schedule(self, t):
            return process.alpha(t), process.sigma(t)

        def __call__(self, z, t, **_):
            return SimpleNamespace(mean=exact_x0(z, 1.0, float(process.sigma(t))))

    on_grid = type(peer, (getattr(azula, peer),), {"timesteps": sigmas / 10})
    theirs = on_grid(Exact(), steps=len(sigmas) - 1, silent=True)(start.clone())
    assert not bool(theirs.isfinite().all())
    plan = lookup.build("sampler", spec)[0].plan(process, sigmas / 10)
    assert bool(run_plan(plan, process, start).isfinite().all())


def test_the_exact_model_is_that_of_the_engine(exact_x0):
    """What the parity tests ask, they ask of the mixture that the conformance kit ships."""
    from trilemma.testing import GaussianMixtureDenoiser
    from trilemma.testing.exact_processes import AngleProcess

    process = AngleProcess()
    model = GaussianMixtureDenoiser(process, (-1.0, 0.2, 1.1), (0.04, 0.12, 0.06), shape=(1, 1, 1))
    z, t = torch.linspace(-2, 2, 9, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    found = model.predict(z.view(-1, 1, 1, 1), alpha, sigma, "x0").flatten()
    assert torch.allclose(found, exact_x0(z, float(alpha), float(sigma)), atol=1e-12)
