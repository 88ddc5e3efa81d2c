"""k-diffusion's Euler, ancestral, Heun and linear multistep samplers, in float64, on the same levels."""

from __future__ import annotations

import pytest
import torch

from trilemma import lookup

CHURN = "s_churn=4,s_tmin=0.2,s_tmax=5.0,s_noise=1.1"
CHURNED = {"s_churn": 4.0, "s_tmin": 0.2, "s_tmax": 5.0, "s_noise": 1.1}


@pytest.mark.parametrize(
    ("spec", "peer", "options", "to_data"),
    [
        ("euler", "sample_euler", {}, True),
        ("heun", "sample_heun", {}, True),
        *((f"lms:points={n}", "sample_lms", {"order": n}, False) for n in (1, 2, 3, 4)),
    ],
)
def test_the_flow_agrees(
    spec, peer, options, to_data, k_diffusion, process, sigmas, start, exact_x0, run_plan
):
    levels = sigmas if to_data else sigmas[:-1]
    theirs = getattr(k_diffusion, peer)(
        lambda x, sigma: exact_x0(x, 1.0, float(sigma[0])), start.clone(), levels, disable=True, **options
    )
    ours = run_plan(lookup.build("sampler", spec)[0].plan(process, levels / 10), process, start)
    assert float((ours - theirs).abs().max()) < 1e-9


@pytest.mark.parametrize("eta", [0.4, 1.0, 1.6])
def test_ancestral_agrees(eta, k_diffusion, process, sigmas, start, fresh, exact_x0, run_plan):
    drawn = iter(fresh)
    theirs = k_diffusion.sample_euler_ancestral(
        lambda x, sigma: exact_x0(x, 1.0, float(sigma[0])),
        start.clone(),
        sigmas,
        disable=True,
        eta=eta,
        noise_sampler=lambda *_: next(drawn),
    )
    plan = lookup.build("sampler", f"euler-ancestral:eta={eta}")[0].plan(process, sigmas / 10)
    assert float((run_plan(plan, process, start, fresh) - theirs).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_churn_agrees(name, k_diffusion, monkeypatch, process, sigmas, start, fresh, exact_x0, run_plan):
    """Theirs draws noise in every step and uses it where there is churn; ours draws it there alone."""
    drawn = iter(fresh)
    monkeypatch.setattr(k_diffusion.torch, "randn_like", lambda _: next(drawn))
    theirs = getattr(k_diffusion, f"sample_{name}")(
        lambda x, sigma: exact_x0(x, 1.0, float(sigma[0])), start.clone(), sigmas, disable=True, **CHURNED
    )
    churned = [noise for noise, level in zip(fresh, sigmas.tolist(), strict=False) if 0.2 <= level <= 5.0]
    plan = lookup.build("sampler", f"{name}:{CHURN}")[0].plan(process, sigmas / 10)
    assert sum(bool(row.C) for row in plan.rows) == len(churned) == 5
    assert float((run_plan(plan, process, start, churned) - theirs).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["2m", "3m"])
def test_in_one_step_theirs_has_no_sample(name, k_diffusion, process, sigmas, start, exact_x0, run_plan):
    ends = sigmas[[0, -1]]
    with pytest.raises(UnboundLocalError):
        getattr(k_diffusion, f"sample_dpmpp_{name}_sde")(
            lambda x, sigma: exact_x0(x, 1.0, float(sigma[0])),
            start.clone(),
            ends,
            disable=True,
            noise_sampler=lambda *_: 0.0,
        )
    plan = lookup.build("sampler", f"dpmpp-{name}-sde")[0].plan(process, ends / 10)
    found = run_plan(plan, process, start)
    assert torch.equal(found, exact_x0(start, 1.0, float(ends[0])))
