"""k-diffusion's exponential samplers, in float64, on the same levels and the same exact denoiser."""

from __future__ import annotations

import pytest
import torch

from trilemma import lookup
from trilemma.testing.interpreter import interpret


@pytest.mark.parametrize(
    ("spec", "peer", "options", "noisy"),
    [
        ("dpmpp-2m", "sample_dpmpp_2m", {}, False),
        ("dpm:order=2", "sample_dpm_2", {}, False),
        ("dpmpp-2s-ancestral", "sample_dpmpp_2s_ancestral", {}, True),
        ("dpmpp-2s:eta=0.6", "sample_dpmpp_2s_ancestral", {"eta": 0.6}, True),
        ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", {}, True),
        ("dpmpp-2m-sde:solver=heun", "sample_dpmpp_2m_sde", {"solver_type": "heun"}, True),
        ("dpmpp-2m-sde:eta=0.4", "sample_dpmpp_2m_sde", {"eta": 0.4}, True),
        ("dpmpp-3m-sde:curvature=0.5", "sample_dpmpp_3m_sde", {}, True),
        ("dpmpp-3m-sde:curvature=0.5,eta=0.4", "sample_dpmpp_3m_sde", {"eta": 0.4}, True),
    ],
)
def test_agrees(
    spec, peer, options, noisy, k_diffusion, process, sigmas, start, fresh, exact_x0, run_plan
) -> None:
    drawn = iter(fresh)
    extra = {**options, "noise_sampler": lambda *_: next(drawn)} if noisy else options
    theirs = getattr(k_diffusion, peer)(
        lambda x, sigma: exact_x0(x, 1.0, float(sigma[0])), start.clone(), sigmas, disable=True, **extra
    )
    ours = run_plan(lookup.build("sampler", spec)[0].plan(process, sigmas / 10), process, start, fresh)
    assert float((ours - theirs).abs().max()) < 1e-9


def test_their_third_order_lacks_half_of_the_curvature(k_diffusion, process, start, run_plan) -> None:
    """x̂₀ that is a parabola in log σ is integrated exactly by the method; theirs is off at the third step."""
    levels = torch.tensor([4.0, 3.0, 2.0, 1.2], dtype=torch.float64)

    def parabola(x, sigma):
        lam = -sigma.log()
        return (0.3 + 0.5 * lam + 0.2 * lam**2).expand(len(x))

    theirs = k_diffusion.sample_dpmpp_3m_sde(
        parabola, start.clone(), levels, disable=True, eta=0.0, noise_sampler=lambda *_: 0.0
    )

    def ours(curvature):
        plan = lookup.build("sampler", f"dpmpp-3m:curvature={curvature}")[0].plan(process, levels / 10)
        return interpret(
            plan, lambda r, row, z: parabola(start, torch.tensor([10 * row.t], dtype=torch.float64)), start
        )

    def primitive(sigma):  # of e^λ p(λ): e^λ (p − p' + p'')
        lam = -sigma.log()
        return (0.3 + 0.5 * lam + 0.2 * lam**2 - 0.5 - 0.4 * lam + 0.4) / sigma

    before, after = ours(1.0)[-2:]
    exact = levels[3] / levels[2] * before + levels[3] * (primitive(levels[3]) - primitive(levels[2]))
    assert float((after - exact).abs().max()) < 1e-12
    assert float((theirs - ours(0.5)[-1]).abs().max()) < 1e-9
    assert float((theirs - exact).abs().max()) > 1e-3
