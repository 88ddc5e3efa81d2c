"""diffusers' DDIM, Euler, Euler ancestral, Heun and linear multistep schedulers, which compute in float32."""

from __future__ import annotations

import itertools

import pytest
import torch

from trilemma import lookup

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")


def ddim(diffusers, exact_x0, start, steps, eta=0.0, noise=(), **options):
    """The samples of their DDIM scheduler on the linear table, and the times it asked the network at."""
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, **options)
    scheduler.set_timesteps(steps)
    fresh, x = iter(noise), start.clone()
    for t in scheduler.timesteps:
        alpha_bar = float(scheduler.alphas_cumprod[t])
        alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        eps = (x - alpha * exact_x0(x, alpha, sigma)) / sigma
        extra = {"variance_noise": next(fresh)} if eta else {}
        x = scheduler.step(eps, t, x, eta=eta, **extra).prev_sample
    return x, (scheduler.timesteps + 1) / 1000


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [8, 50])
@pytest.mark.parametrize(("grid", "offset"), [("uniform", 0), ("leading", 1)])
def test_ddim_with_leading_times_agrees(grid, offset, steps, eta, diffusers, start, exact_x0, run_plan):
    generator = torch.Generator().manual_seed(5)
    noise = [torch.randn(16, dtype=torch.float64, generator=generator) for _ in range(steps)]
    theirs, asked = ddim(diffusers, exact_x0, start / 9, steps, eta, noise, steps_offset=offset)
    process = lookup.build("process", "vp")[0]
    sampler = lookup.build("sampler", f"ddim:grid={grid},eta={eta}")[0]
    times = sampler.times(process, steps)
    assert torch.allclose(times[:-1], asked.double(), atol=1e-9)
    found = run_plan(sampler.plan(process, times), process, start / 9, noise)
    assert float((found - theirs).abs().max()) < 2e-5


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_their_other_times_step_to_where_they_do_not_go_on(spacing, diffusers, start, exact_x0, run_plan):
    """Their step from t always lands on t − ⌊T/S⌋, whatever the next time is: with 600 of 1000 steps they cross 600
    of the 1000 levels. Against the exact flow our error falls with the steps, as it must; theirs rises."""
    process, start = lookup.build("process", "vp")[0], start / 9
    solver = lookup.build("sampler", "dpm:order=3,grid=lambda")[0]
    flow = run_plan(solver.plan(process, solver.times(process, 400)), process, start)
    sampler = lookup.build("sampler", f"ddim:grid={spacing}")[0]
    ours, theirs = {}, {}
    for steps in (50, 600):
        found, asked = ddim(diffusers, exact_x0, start, steps, timestep_spacing=spacing)
        times = sampler.times(process, steps)
        assert (
            float((times[:-1] - asked).abs().max()) < 2e-3
        )  # the same grid, but for how an entry is rounded
        theirs[steps] = float((found - flow).abs().mean())
        ours[steps] = float((run_plan(sampler.plan(process, times), process, start) - flow).abs().mean())
    assert ours[600] < ours[50] / 5
    assert theirs[600] > 2 * theirs[50]
    assert theirs[600] > 20 * ours[600], (ours, theirs)


@pytest.mark.parametrize(
    ("spacing", "steps", "wrong"),
    [
        ("leading", 20, 0),
        ("leading", 30, 0),
        ("linspace", 20, 19),
        ("trailing", 30, 10),
        ("trailing", 60, 39),
    ],
)
def test_how_many_of_their_steps_land_elsewhere(spacing, steps, wrong, diffusers):
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    assert sum(t - 1000 // steps != s for t, s in itertools.pairwise(times)) == wrong


def follow(scheduler, steps, levels, start, exact_x0):
    """Their states from a start at the first of these levels, which take the place of the scheduler's own."""
    scheduler.set_timesteps(steps)
    scheduler.sigmas = levels.float()
    x = start.clone()
    for level, t in zip(levels.tolist(), scheduler.timesteps, strict=False):
        eps = (x - exact_x0(x, 1.0, level)) / level
        scheduler.scale_model_input(x, t)
        x = scheduler.step(eps, t, x).prev_sample.double()
    return x


def test_euler_agrees(diffusers, process, sigmas, start, exact_x0, run_plan):
    theirs = follow(diffusers.EulerDiscreteScheduler(), 8, sigmas, start, exact_x0)
    plan = lookup.build("sampler", "euler")[0].plan(process, sigmas / 10)
    assert float((run_plan(plan, process, start) - theirs).abs().max()) < 2e-5


def test_euler_ancestral_agrees(diffusers, monkeypatch, process, sigmas, start, fresh, exact_x0, run_plan):
    drawn = iter(fresh)
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor",
        lambda *_, **__: next(drawn),
    )
    theirs = follow(diffusers.EulerAncestralDiscreteScheduler(), 8, sigmas, start, exact_x0)
    plan = lookup.build("sampler", "euler-ancestral")[0].plan(process, sigmas / 10)
    assert float((run_plan(plan, process, start, fresh) - theirs).abs().max()) < 2e-5


def test_heun_agrees(diffusers, process, sigmas, start, exact_x0, run_plan):
    doubled = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    theirs = follow(diffusers.HeunDiscreteScheduler(), 8, doubled, start, exact_x0)
    plan = lookup.build("sampler", "heun")[0].plan(process, sigmas / 10)
    assert float((run_plan(plan, process, start) - theirs).abs().max()) < 2e-5


def test_linear_multistep_agrees(diffusers, process, sigmas, start, exact_x0, run_plan):
    levels = sigmas[:-1]
    theirs = follow(diffusers.LMSDiscreteScheduler(), 7, levels, start, exact_x0)
    plan = lookup.build("sampler", "lms")[0].plan(process, levels / 10)
    assert float((run_plan(plan, process, start) - theirs).abs().max()) < 2e-5
