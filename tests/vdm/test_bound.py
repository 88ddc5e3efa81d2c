"""The bound: its exact values on Gaussian data, its independence of the interior, its terms."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from support.gaussian_data import (
    HIGH,
    LOW,
    VARIANCE,
    Cubic,
    ExactNoise,
    Wobbly,
    closed_form,
    corners,
    with_interior,
)
from trilemma.numerics.conversion import noise_error
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.vdm.bound import bits_per_dimension, prior_kl, reconstruction
from trilemma_plugins.vdm.grey_levels import level_indices, level_log_probabilities, level_values
from trilemma_plugins.vdm.interior import Cosine, Interior, Linear, Monotone
from trilemma_plugins.vdm.objective import VariationalBound
from trilemma_plugins.vdm.process import VDM

INTERIORS = [Linear(), Cubic(), Wobbly(), Cosine(LOW, HIGH), Monotone(LOW, HIGH, 16)]


def per_time(interior: Interior, steps: int | None, times: torch.Tensor) -> torch.Tensor:
    """The diffusion term in nats, by time, with the expectation over data and noise exact."""
    denoiser = ExactNoise(with_interior(interior))
    x, t, noise = corners(times)
    with torch.no_grad():
        terms = VariationalBound(steps=steps).diffusion(denoiser, denoiser, x, t, noise, {})
    return terms.view(-1, 4).mean(1)


@pytest.mark.parametrize("interior", INTERIORS, ids=lambda i: type(i).__name__)
def test_continuous_bound_is_the_closed_form_for_any_interior(interior: Interior) -> None:
    """By Gauss-Legendre quadrature in t."""
    nodes, weights = (torch.from_numpy(entry) / 2 for entry in numpy.polynomial.legendre.leggauss(600))
    found = (weights * per_time(interior, None, nodes + 0.5)).sum().item()
    assert found == pytest.approx(5.9560146, abs=1e-7)
    assert found == pytest.approx(closed_form(), abs=1e-7)


@pytest.mark.parametrize(
    ("steps", "expected", "digits"), [(10, 15.7276, 5e-5), (100, 6.48569, 5e-6), (1000, 6.006237, 5e-7)]
)
def test_discrete_bounds(steps: int, expected: float, digits: float) -> None:
    assert per_time(
        Linear(), steps, torch.arange(1, steps + 1, dtype=torch.float64) / steps
    ).mean().item() == pytest.approx(expected, abs=digits)


def test_prior_term() -> None:
    gamma = torch.tensor(HIGH, dtype=torch.float64)
    x = torch.full((1, 1, 1, 1), math.sqrt(VARIANCE), dtype=torch.float64)
    found = prior_kl(x, torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()).item()
    assert found == pytest.approx(8.4786e-4, abs=5e-9)


def test_variance_over_times() -> None:
    """Of the loss at a time, over times: 14.46 for linear γ, 28.89 for cubic."""
    times = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert per_time(Linear(), None, times).var().item() == pytest.approx(14.46, abs=5e-3)
    assert per_time(Cubic(), None, times).var().item() == pytest.approx(28.89, abs=5e-3)


def test_reconstruction_is_the_softmax_over_all_levels() -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 256, (4, 1, 8, 8), generator=generator)
    index[0, 0, 0, :2] = torch.tensor([0, 255])
    noise = torch.randn(index.shape, generator=generator, dtype=torch.float64)
    x = level_values(noise)[index]
    assert torch.equal(level_indices(x), index)
    for gamma in (-13.3, -9.0, -4.0, 1.0):
        g = torch.tensor(gamma, dtype=torch.float64)
        alpha, sigma = torch.sigmoid(-g).sqrt(), torch.sigmoid(g).sqrt()
        z = alpha * x + sigma * noise
        whole = level_log_probabilities(z, alpha, sigma)
        torch.testing.assert_close(whole.exp().sum(-1), torch.ones_like(z))
        expected = -whole.gather(-1, index.unsqueeze(-1)).flatten(1).sum(1)
        torch.testing.assert_close(reconstruction(x, z, alpha, sigma), expected, rtol=1e-6, atol=1e-9)


def test_the_likeliest_level_is_the_one_that_was_noised() -> None:
    g = torch.tensor(-13.3, dtype=torch.float64)
    alpha, sigma = torch.sigmoid(-g).sqrt(), torch.sigmoid(g).sqrt()
    x = level_values(torch.zeros(1, dtype=torch.float64)).view(1, 1, 16, 16)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = alpha * x + sigma * noise.clamp(-2.9, 2.9)
    assert torch.equal(level_log_probabilities(z, alpha, sigma).argmax(-1), level_indices(x))


def test_low_discrepancy_times() -> None:
    times = uniform_draws(8, torch.Generator().manual_seed(0)).sort().values
    torch.testing.assert_close(times.diff(), torch.full((7,), 1 / 8, dtype=torch.float64))
    assert 0 <= float(times[0]) < 1 / 8
    objective = VariationalBound(steps=10)
    drawn = objective.draw_times(20, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.sort().values, (torch.arange(20) // 2 + 1).double() / 10)


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v", "score", "flow"])
def test_noise_error_is_the_same_in_every_parameterization(parameterization: str) -> None:
    """Of a prediction that is wrong by δ in ε, and by −δσ/α in x₀."""
    from trilemma.numerics.conversion import functional

    generator = torch.Generator().manual_seed(2)
    x, noise, delta = torch.randn(3, 5, 1, 2, 2, generator=generator, dtype=torch.float64)
    alpha, sigma = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    a, b = functional(parameterization, alpha, sigma)
    prediction = a * (x - sigma / alpha * delta) + b * (noise + delta)
    found = noise_error(prediction, parameterization, x, noise, alpha, sigma)
    torch.testing.assert_close(found, delta.square().flatten(1).sum(1))


def test_weighted_forms() -> None:
    """w = sigmoid(b + γ) inside the mean; "uniform" is the plain error."""
    denoiser = ExactNoise(VDM("cosine"))
    x, t, noise = corners(torch.linspace(0.1, 0.9, 5, dtype=torch.float64))

    def terms(**options: object) -> torch.Tensor:
        with torch.no_grad():
            return VariationalBound(**options).diffusion(denoiser, denoiser, x, t, noise, {})  # type: ignore[arg-type]

    gamma, slope = denoiser.process.gamma(t), denoiser.process.slope(t)
    torch.testing.assert_close(terms(weighting="sigmoid", bias=1.0), terms() * torch.sigmoid(1 + gamma))
    floored = terms(weighting="sigmoid", bias=1.0, floor=0.25)
    torch.testing.assert_close(floored, terms() * (0.25 + 0.75 * torch.sigmoid(1 + gamma)))
    torch.testing.assert_close(terms(weighting="uniform") * slope / 2, terms())


def test_bits() -> None:
    nats = torch.tensor([12.0 * math.log(2)])
    assert bits_per_dimension(nats, torch.zeros(1, 3, 2, 2)).item() == pytest.approx(1)
