"""diffusers' PNDM, with either warm-up, on the table of DDPM; it computes coefficients in float32."""

from __future__ import annotations

import pytest

from trilemma import lookup

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")


@pytest.mark.parametrize(("warmup", "skip"), [("prk", False), ("heun", True)])
def test_agrees(warmup, skip, start, exact_x0, run_plan, diffusers) -> None:
    steps, z = 10, (start / 9).view(-1, 1, 1, 1)
    scheduler = diffusers.PNDMScheduler(
        beta_start=1e-4, beta_end=0.02, steps_offset=1, set_alpha_to_one=True, skip_prk_steps=skip
    )
    scheduler.set_timesteps(steps)
    x = z.clone()
    for t in scheduler.timesteps:
        alpha_bar = float(scheduler.alphas_cumprod[t])
        alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        x = scheduler.step((x - alpha * exact_x0(x, alpha, sigma)) / sigma, t, x).prev_sample
    process = lookup.build("process", "vp")[0]
    sampler = lookup.build("sampler", f"pndm:warmup={warmup}")[0]
    times = sampler.times(process, steps)
    assert len(scheduler.timesteps) == sampler.nfe(steps)
    found = run_plan(sampler.plan(process, times), process, z)
    assert float((found - x).abs().max()) < 2e-5
