"""The few steps of denoising diffusion GANs against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.interfaces.spacing import spaced_times
from trilemma.numerics.draws import standard_normals
from trilemma_plugins.ddgan.posterior import earlier, pair
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP

FOUR = DiscreteVP("few", T=4)


def test_the_table_of_four_steps_is_the_papers():
    """From 2112.07804's formula for β, with its first point at u = 10⁻³."""
    beta = torch.tensor([0.478255, 0.849206, 0.956418, 0.987404], dtype=torch.float64)
    alpha_bar = torch.tensor([0.521745, 0.078676, 0.0034288, 4.319e-5], dtype=torch.float64)
    torch.testing.assert_close(FOUR.betas, beta, rtol=0, atol=5e-7)
    t = torch.arange(1, 5, dtype=torch.float64) / 4
    torch.testing.assert_close(FOUR.alpha(t).square(), alpha_bar, rtol=1e-4, atol=0)


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_table_of_few_steps_is_the_process_at_few_times(steps):
    """ᾱ_k = f(u_k)/f(10⁻³) with f(u) = exp(−½ u² 19.9 − 0.1 u), u_k = 10⁻³ + (1 − 10⁻³) k/T, of 2112.07804."""
    process = DiscreteVP("few", T=steps)
    times = spaced_times(process, steps, "trailing")
    places = [1e-3 + (1 - 1e-3) * k / steps for k in range(steps, -1, -1)]
    log = [-0.5 * u * u * 19.9 - 0.1 * u for u in places]
    expected = torch.tensor([math.exp(value - log[-1]) for value in log], dtype=torch.float64)
    torch.testing.assert_close(process.alpha(times).square(), expected, rtol=1e-4, atol=1e-7)


def test_the_coefficients_of_the_posterior_are_the_papers():
    times = spaced_times(FOUR, 4, "trailing")
    t, s = times[:-1].flip(0), times[1:].flip(0)
    zero, one = torch.zeros(4, 1, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    of_data = earlier(FOUR, zero, one, s, t, zero).flatten()
    of_state = earlier(FOUR, one, zero, s, t, zero).flatten()
    variance = earlier(FOUR, zero, zero, s, t, one).flatten().square()
    expected = [[1, 0.665778, 0.269191, 0.0578216], [0, 0.201576, 0.193001, 0.111852]]
    torch.testing.assert_close(of_data, torch.tensor(expected[0], dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(of_state, torch.tensor(expected[1], dtype=torch.float64), rtol=0, atol=1e-6)
    of_noise = torch.tensor([0, 0.440819, 0.884202, 0.984061], dtype=torch.float64)
    torch.testing.assert_close(variance, of_noise, rtol=0, atol=1e-6)


def test_samples_are_drawn_by_the_same_steps():
    times = spaced_times(FOUR, 4, "trailing")
    rows = DDIM(eta=1.0).plan(FOUR, times).rows
    zero, one = torch.zeros(4, 1, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    t, s = times[:-1], times[1:]
    found = [
        earlier(FOUR, *given, s, t, noise).flatten()
        for *given, noise in ((one, zero, zero), (zero, one, zero), (zero, zero, one))
    ]
    expected = torch.tensor([(row.A, row.B[0][1], row.C) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(found, 1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [FOUR, ContinuousVP()], ids=repr)
def test_the_posterior_of_the_true_data_keeps_the_marginal(process):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.full((200_000,), 0.7, dtype=torch.float64)
    s, t = torch.full_like(x0, 0.25), torch.full_like(x0, 0.75)
    z_s, z_t = pair(process, x0, s, t, (standard_normals(x0, generator), standard_normals(x0, generator)))
    again = earlier(process, z_t, x0, s, t, standard_normals(x0, generator))
    alpha, sigma = float(process.alpha(s[:1])), float(process.sigma(s[:1]))
    for state in (z_s, again):
        assert float(state.mean()) == pytest.approx(alpha * 0.7, abs=4 * sigma / 200_000**0.5)
        assert float(state.std()) == pytest.approx(sigma, rel=0.01)
    # And it goes with z_t as the true neighbour does.
    wanted = float(torch.corrcoef(torch.stack([z_s, z_t]))[0, 1])
    assert float(torch.corrcoef(torch.stack([again, z_t]))[0, 1]) == pytest.approx(wanted, abs=0.01)
