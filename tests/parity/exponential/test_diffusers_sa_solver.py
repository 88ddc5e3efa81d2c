"""diffusers' SA-Solver, which takes the first term of the slope's integral where there are two points."""

from __future__ import annotations

import pytest

from trilemma_plugins.solvers.sa_solver import SASolver

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("points", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (2, 3), (3, 3)])
def test_agrees(
    points, tau, sigmas, start, fresh, exact_x0, run_plan, monkeypatch, diffusers, pythagorean
) -> None:
    rhos, noise = sigmas[:-1], [entry.view(-1, 1, 1, 1) for entry in fresh]
    drawn = iter(noise)
    monkeypatch.setattr("diffusers.schedulers.scheduling_sasolver.randn_tensor", lambda *_, **__: next(drawn))
    scheduler = diffusers.SASolverScheduler(
        predictor_order=points[0], corrector_order=points[1], tau_func=lambda _: tau, lower_order_final=False
    )
    scheduler.set_timesteps(len(rhos) - 1)
    scheduler.sigmas = rhos.clone()
    z = (start / 9).view(-1, 1, 1, 1)
    x = z.clone()
    for rho, t in zip(rhos.tolist(), scheduler.timesteps, strict=False):
        alpha = (1 + rho**2) ** -0.5
        x0 = exact_x0(x, alpha, rho * alpha)
        x = scheduler.step((x - alpha * x0) / (rho * alpha), t, x).prev_sample
    plan = SASolver(*points, tau=tau, slope="half").plan(pythagorean, rhos / 10)
    assert float((run_plan(plan, pythagorean, z, noise) - x).abs().max()) < 1e-9
