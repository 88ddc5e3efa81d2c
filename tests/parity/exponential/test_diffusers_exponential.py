"""diffusers' DPM-Solver++, UniPC and DEIS, which compute coefficients in float32."""

from __future__ import annotations

import pytest

from trilemma import lookup

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")


def theirs(scheduler, rhos, start, exact_x0, noise=()):
    scheduler.set_timesteps(len(rhos) - 1)
    scheduler.sigmas = rhos.clone()
    fresh, x = iter(noise), start.clone()
    for i, t in enumerate(scheduler.timesteps):
        alpha = float((1 + rhos[i] ** 2).rsqrt())
        sigma = float(rhos[i]) * alpha
        x0 = exact_x0(x, alpha, sigma)
        extra = {"variance_noise": next(fresh)} if noise else {}
        x = scheduler.step((x - alpha * x0) / sigma, t, x, **extra).prev_sample
    return x


@pytest.mark.parametrize(
    ("spec", "name", "options", "to_data"),
    [
        ("dpmpp-2m", "DPMSolverMultistepScheduler", {"solver_type": "midpoint"}, True),
        ("dpmpp-2m:solver=heun", "DPMSolverMultistepScheduler", {"solver_type": "heun"}, True),
        (
            "dpmpp-2m-sde",
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"},
            True,
        ),
        *(
            (
                f"unipc:p={p},variant={v}",
                "UniPCMultistepScheduler",
                {"solver_order": p, "solver_type": v},
                False,
            )
            for p in (1, 2, 3)
            for v in ("bh1", "bh2")
        ),
        *((f"deis:points={n}", "DEISMultistepScheduler", {"solver_order": n}, False) for n in (1, 2, 3)),
    ],
)
def test_agrees(
    spec, name, options, to_data, sigmas, start, fresh, exact_x0, run_plan, diffusers, pythagorean
) -> None:
    rhos = sigmas if to_data else sigmas[:-1]
    final = {"final_sigmas_type": "zero"} if "DPM" in name else {}
    scheduler = getattr(diffusers, name)(lower_order_final=False, **final, **options)
    noise = fresh if "sde" in spec else ()
    start, noise = (start / 9).view(-1, 1, 1, 1), [entry.view(-1, 1, 1, 1) for entry in noise]
    expected = theirs(scheduler, rhos, start, exact_x0, noise)
    found = run_plan(lookup.build("sampler", spec)[0].plan(pythagorean, rhos / 10), pythagorean, start, noise)
    assert float((found - expected).abs().max()) < 2e-5
