"""Likelihoods of models whose density is known: the bound, and the probability-flow equation."""

from __future__ import annotations

import math

import pytest
import torch

from support.gaussian_data import closed_form
from trilemma import lookup
from trilemma.interfaces.process import Process
from trilemma.testing import GaussianDenoiser
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.vdm.dequantization import last_noise, uniform_noise
from trilemma_plugins.vdm.flow_likelihood import log_likelihood
from trilemma_plugins.vdm.likelihood_bound import _noised, _pixels, _prior, bound_terms
from trilemma_plugins.vdm.process import VDM
from trilemma_plugins.vdm.time_interval import prior_deviation, time_interval

PROCESSES = [
    "vdm",
    "vdm:schedule=cosine",
    "vdm:schedule=learned,width=8",
    "vp-continuous",
    "flow",
    "edm",
    "sub-vp",
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pushed_log_density(process: Process, x: torch.Tensor, mean: float, variance: float) -> torch.Tensor:
    """log p [B] of N(0, P²) carried from t₁ to t₀ by the exact flow, which keeps (y − m)/√(s² + r²) constant."""
    at_ends = time_interval(process)
    alpha, sigma = process.alpha(at_ends), process.sigma(at_ends)
    spread = (variance + (sigma / alpha).square()).sqrt()
    ratio = spread[0] / spread[1]
    deviation = prior_deviation(process) / alpha[1] * ratio
    centre = mean * (1 - ratio)
    law = torch.distributions.Normal(centre, deviation)
    return law.log_prob(x).flatten(1).sum(1)


@pytest.mark.parametrize("spec", PROCESSES)
@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_the_flow_has_the_closed_form_on_gaussian_data(spec: str, parameterization: str) -> None:
    process = lookup.process(spec)
    if parameterization == "v" and spec in ("edm", "flow"):
        parameterization = "x0"
    model = GaussianDenoiser(process, 0.3, 0.25, parameterization, (1, 2, 2))
    x = torch.randn(3, 1, 2, 2, generator=generator(), dtype=torch.float64) / 2
    found, evaluations = log_likelihood(model, x, {}, generator(1), tolerance=1e-7)
    torch.testing.assert_close(found, pushed_log_density(process, x, 0.3, 0.25), rtol=0, atol=1e-4)
    assert evaluations < 2000


def test_the_flow_on_a_mixture() -> None:
    """γ₁ = 16 leaves nothing of the data in the prior, γ₀ = −13.3 next to no noise on them."""
    process = VDM(gamma_max=16.0)
    model = GaussianMixtureDenoiser(process, parameterization="eps")
    x = torch.tensor([-1.2, -0.5, 0.1, 0.7, 1.1], dtype=torch.float64).view(-1, 1, 1, 1)
    found, _ = log_likelihood(model, x, {"class": torch.full((5,), 3)}, generator(), tolerance=1e-7)
    variance = model.variances + math.exp(-13.3)
    law = torch.distributions.Normal(model.means.flatten(), variance.sqrt())
    expected = (law.log_prob(x.view(-1, 1)) + model.weights.log()).logsumexp(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_probes_average_to_the_trace() -> None:
    """In two dimensions whose posterior is not diagonal one probe is off, and many agree with the mixture."""
    process = VDM(gamma_max=16.0)
    means = [torch.tensor([-0.8, -0.5]).view(1, 1, 2), torch.tensor([0.8, 0.5]).view(1, 1, 2)]
    model = GaussianMixtureDenoiser(process, means, 0.1, parameterization="eps", shape=(1, 1, 2))
    x = torch.tensor([0.1, 0.2], dtype=torch.float64).view(1, 1, 1, 2)
    law = torch.distributions.Normal(model.means, math.sqrt(0.1 + math.exp(-13.3)))
    expected = (law.log_prob(x).flatten(1).sum(1) + math.log(0.5)).logsumexp(0)
    many = x.expand(400, 1, 1, 2)
    found, _ = log_likelihood(model, many, {"class": torch.full((400,), 2)}, generator(), tolerance=1e-6)
    assert float(found.std()) > 0.01
    assert float(found.mean()) == pytest.approx(float(expected), abs=4 * float(found.std()) / 20)


@pytest.mark.parametrize("spec", PROCESSES)
def test_the_bound_in_continuous_time(spec: str) -> None:
    """L∞ of Gaussian data is the closed form at the ends of γ, on every process."""
    process = lookup.process(spec)
    model = GaussianDenoiser(process, 0.0, 0.25, "x0" if spec in ("edm", "flow") else "eps", (1, 4, 4))
    x = torch.randn(20_000, 1, 4, 4, generator=generator(), dtype=torch.float64) / 2
    terms = bound_terms(model, x, {}, generator(1))
    low, high = (-process.log_snr(time_interval(process))).tolist()
    diffusion = terms["diffusion"] / 16
    error = float(diffusion.std()) / math.sqrt(len(x))
    assert float(diffusion.mean()) == pytest.approx(closed_form(low, high), abs=4 * error)
    assert error < 0.05 * closed_form(low, high)


def test_the_bound_may_end_at_a_later_time() -> None:
    model = GaussianDenoiser(VDM(), 0.0, 0.25, "eps", (1, 4, 4))
    x = torch.randn(20_000, 1, 4, 4, generator=generator(), dtype=torch.float64) / 2
    found = bound_terms(model, x, {}, generator(1), first=0.4)["diffusion"] / 16
    expected = closed_form(-13.3 + 0.4 * 18.3, 5.0)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / math.sqrt(len(x)))


@pytest.mark.parametrize("spec", ["cld", "cld:schedule=linear", "cld:friction=0.3"])
def test_the_diffusion_term_of_several_components(spec: str) -> None:
    """With the exact score it is what z_t₀ says of x beyond z_1, each ½ log(1 + s² μᵀΣ⁻¹μ) on Gaussian data."""
    process = lookup.process(spec)
    model = GaussianMixtureDenoiser(process, (0.0,), 0.25, parameterization="eps", shape=(1, 4, 4))
    x = torch.randn(20_000, 1, 4, 4, generator=generator(), dtype=torch.float64) / 2
    diffusion = bound_terms(model, x, {"class": torch.zeros(len(x), dtype=torch.long)}, generator(1))[
        "diffusion"
    ]
    mean, cov = process.moments(time_interval(process))
    snr = torch.stack([m @ torch.linalg.solve(S, m) for m, S in zip(mean, cov, strict=True)])
    known = (1 + 0.25 * snr).log() / 2
    error = float(diffusion.std()) / 16 / math.sqrt(len(x))
    assert float(diffusion.mean()) / 16 == pytest.approx(float(known[0] - known[1]), abs=4 * error)
    assert error < 0.05 * float(known[0] - known[1])


def test_pixels_seen_through_several_components() -> None:
    """The one number that a state says of a pixel, and how far off it is."""
    process, x = lookup.process("cld"), torch.full((50_000, 1, 1, 1), 0.3, dtype=torch.float64)
    t = torch.tensor(0.2, dtype=torch.float64)
    y, deviation = _pixels(process, t, _noised(process, t.expand(len(x)), x, generator())[0])
    assert float(y.mean()) == pytest.approx(0.3, abs=4 * float(deviation) / math.sqrt(len(x)))
    assert float(y.std() / deviation) == pytest.approx(1, abs=4 / math.sqrt(2 * len(x)))
    mean, cov = process.moments(t)
    assert float(deviation) < float(cov[0, 0].sqrt() / mean[0])  # better than the position alone


def test_the_prior_term_of_several_components() -> None:
    process, x = lookup.process("cld"), torch.tensor([0.5, -1.0], dtype=torch.float64).view(2, 1, 1, 1)
    t = torch.tensor(0.3, dtype=torch.float64)
    mean, cov = process.moments(t)
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 0.25]).double())
    )
    for value, found in zip(x.flatten(), _prior(process, t, x), strict=True):
        law = torch.distributions.MultivariateNormal(mean * value, cov)
        torch.testing.assert_close(found, torch.distributions.kl_divergence(law, prior))


def test_the_bound_of_finitely_many_steps() -> None:
    model = GaussianDenoiser(VDM(), 0.0, 0.25, "eps", (1, 4, 4))
    x = torch.randn(20_000, 1, 4, 4, generator=generator(), dtype=torch.float64) / 2
    for steps, expected in ((10, 15.7276), (100, 6.48569)):
        found = bound_terms(model, x, {}, generator(1), steps)["diffusion"] / 16
        assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / math.sqrt(len(x)))


def test_a_table_has_its_own_steps() -> None:
    """Σ ½ expm1(γ_t − γ_s) E‖ε − ε̂(z_t)‖² over the table, with the exact errors s² α²/(α² s² + σ²)."""
    process = lookup.process("vp:T=50,beta_max=0.3")
    model = GaussianDenoiser(process, 0.0, 0.25, "eps", (1, 4, 4))
    x = torch.randn(20_000, 1, 4, 4, generator=generator(), dtype=torch.float64) / 2
    times = torch.arange(1, 51, dtype=torch.float64) / 50
    gamma = -process.log_snr(times)
    expected = float((gamma.diff().expm1() / 2 * 0.25 / (0.25 + gamma[1:].exp())).sum())
    found = bound_terms(model, x, {}, generator(1))["diffusion"] / 16
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / math.sqrt(len(x)))
    assert expected > closed_form(*gamma[[0, -1]].tolist())


def test_the_bound_lies_above_the_likelihood() -> None:
    """prior + diffusion + reconstruction ≥ −log P of the levels by the flow, by what a Gaussian's denoiser loses below
    the gap between two levels, where one of the data would know them: less than half a nat."""
    model = GaussianDenoiser(VDM(), 0.0, 0.09, "eps", (1, 4, 4))
    x = torch.randn(4000, 1, 4, 4, generator=generator(), dtype=torch.float64) * 0.3
    x = ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    bound = sum(entry for entry in bound_terms(model, x, {}, generator(1)).values()) / 16
    exact, noisy = (
        (beside - log_likelihood(model, points, {}, generator(3))[0]) / 16
        for points, beside in (
            uniform_noise(model.process, x, generator(2)),
            last_noise(model.process, x, generator(2)),
        )
    )
    error = 4 * math.hypot(float(bound.std()), float(exact.std())) / math.sqrt(len(x))
    assert float(exact.mean()) - error < float(bound.mean()) < float(exact.mean()) + 0.5 + error
    assert float(noisy.mean()) == pytest.approx(
        float(bound.mean()), abs=error
    )  # their score is one distribution's
