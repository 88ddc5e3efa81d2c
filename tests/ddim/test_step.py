"""The step of DDIM by itself, against its equation and against the sampler."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import trilemma
from trilemma.engine.noise import keyed_normal
from trilemma.numerics.normal import STEP
from trilemma.testing import GaussianDenoiser
from trilemma_plugins.ddim.step import ddim_step
from trilemma_plugins.ddpm.process import ContinuousVP

PROCESS = ContinuousVP()
T, S = 0.7, 0.45


def scales(t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    return float(PROCESS.alpha(time)), float(PROCESS.sigma(time))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("clip", [None, 0.8])
def test_with_guidance_it_is_the_papers(eta: float, clip: float | None) -> None:
    z, output = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(6, 4, 5, dtype=torch.float64)
    indices = torch.arange(3)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(T), scales(S)
    cond, null = output.chunk(2)
    eps = null + 2.5 * (cond - null)
    x0 = (z - sigma_t * eps) / alpha_t
    if clip is not None:
        x0 = x0.clamp(-clip, clip)
    eps = (z - alpha_t * x0) / sigma_t
    c1 = eta * (sigma_s / sigma_t) * math.sqrt(1 - (alpha_t / alpha_s) ** 2)
    noise = keyed_normal(5, indices, 9, (4, 5), STEP, torch.float64)
    expected = alpha_s * x0 + math.sqrt(sigma_s**2 - c1**2) * eps + c1 * noise
    step = ddim_step(PROCESS, T, S, eta=eta, scale=2.5, clip=clip)
    torch.testing.assert_close(step(z, output, seed=5, step=9, indices=indices), expected)


def test_the_last_step_is_the_prediction() -> None:
    z, v = torch.randn(2, 7, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64)
    alpha, sigma = scales(T)
    torch.testing.assert_close(ddim_step(PROCESS, T, 0.0, parameterization="v")(z, v), alpha * z - sigma * v)


def test_steps_one_after_the_other_are_a_sample_bit_for_bit() -> None:
    model = GaussianDenoiser(PROCESS, 0.3, 0.25, "eps", (1, 4, 4))
    z = torch.randn(2, 1, 4, 4)
    sampler = trilemma.sampler("ddim", eta=1.0)
    drawn = trilemma.sample(model, latent=z, sampler=sampler, steps=5, seed=7).samples
    times = sampler.times(PROCESS, 5).tolist()
    for number, (t, s) in enumerate(itertools.pairwise(times)):
        output = model(z, torch.full((2,), t))
        z = ddim_step(PROCESS, t, s, eta=1.0)(z, output, seed=7, step=number, indices=torch.arange(2))
    assert torch.equal(z, drawn)
