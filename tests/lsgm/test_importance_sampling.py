"""The importance-sampled times against their integrals, their closed forms, and the variance that they promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma_plugins.ddpm.geometric import GeometricVP
from trilemma_plugins.ddpm.process import ContinuousVP
from trilemma_plugins.lsgm.importance_sampling import WEIGHTINGS, ImportanceSampling
from trilemma_plugins.processes.sub_vp import SubVP

TIMES = [
    ImportanceSampling(GeometricVP()),
    ImportanceSampling(ContinuousVP()),
    ImportanceSampling(ContinuousVP("cosine"), 0.01),
]
each_process = pytest.mark.parametrize("times", TIMES, ids=lambda times: str(times.process))
# Midpoints of u: their mean is the integral over u.
GRID = (torch.arange(4_000, dtype=torch.float64) + 0.5) / 4_000


def weight_of(weighting: str, process: Process, t: Tensor) -> Tensor:
    """w(t) as the paper's table has it, with its ½."""
    g2, variance = process.diffusion(t)[..., 0, 0].square(), process.sigma(t).square()
    return {"ll": g2 / variance, "drop-sigma2": g2, "unweighted": torch.ones_like(t)}[weighting] / 2


def error_of(process: Process, t: Tensor, data_variance: float) -> Tensor:
    """E(ε − σ z_t)² of codes N(0, s²) and the answer of a normal prior: (1 − σ²)² + σ² α² s²."""
    alpha2, variance = process.alpha(t).square(), process.sigma(t).square()
    return (1 - variance).square() + variance * alpha2 * data_variance


@each_process
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_each_weighting_keeps_its_integral(times: ImportanceSampling, weighting) -> None:
    process, drawn = times.process, times.draw(weighting, GRID)
    found = (drawn.weight * error_of(process, drawn.t, 0.3)).mean()
    t = torch.linspace(times.first, 1, 100_001, dtype=torch.float64)
    integrand = weight_of(weighting, process, t) * error_of(process, t, 0.3)
    assert found.item() == pytest.approx(torch.trapezoid(integrand, t).item(), rel=2e-5)


@each_process
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_encoder_has_the_likelihood_whatever_the_times(times: ImportanceSampling, weighting) -> None:
    process = times.process
    # Quadratic in u, as the likelihood's weight of linear variances falls as 1/σ².
    u, jacobian = GRID.square(), 2 * GRID
    own, other = times.draw("ll", GRID), times.draw(weighting, u)
    expected = (own.likelihood * error_of(process, own.t, 0.3)).mean().item()
    found = (jacobian * other.likelihood * error_of(process, other.t, 0.3)).mean().item()
    assert found == pytest.approx(expected, rel=1e-3)


@each_process
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_of_normal_codes_the_loss_is_the_same_at_every_time(times: ImportanceSampling, weighting) -> None:
    """So that all variance that the time brings is gone, where uniform times leave much of it."""
    process, drawn = times.process, times.draw(weighting, GRID)
    values = drawn.weight * error_of(process, drawn.t, 1.0)
    assert (values.std() / values.mean()).item() < 1e-9
    uniform = times.first + (1 - times.first) * GRID
    plain = (1 - times.first) * weight_of(weighting, process, uniform) * error_of(process, uniform, 1.0)
    assert plain.mean().item() == pytest.approx(values.mean().item(), rel=2e-3)
    # Uniform times are those of the likelihood on the geometric process.
    if (weighting, times) != ("ll", TIMES[0]):
        assert (plain.std() / plain.mean()).item() > 0.2


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_samples_have_one_mean_within_their_intervals_and_less_variance(weighting) -> None:
    """Drawn losses ‖ε − ε̂‖² themselves, of codes that are nearly normal, on the linear process."""
    process, count = ContinuousVP(), 100_000
    times, draws = ImportanceSampling(process), torch.Generator().manual_seed(0)

    def losses(t: Tensor, weight: Tensor) -> Tensor:
        z0, noise = torch.randn(2, count, generator=draws, dtype=torch.float64)
        alpha, sigma = process.alpha(t), process.sigma(t)
        return weight * (noise - sigma * (alpha * 0.9 * z0 + sigma * noise)).square()

    u = torch.rand(2, count, generator=draws, dtype=torch.float64)
    drawn = times.draw(weighting, u[0])
    uniform = times.first + (1 - times.first) * u[1]
    important = losses(drawn.t, drawn.weight)
    plain = losses(uniform, (1 - times.first) * weight_of(weighting, process, uniform))
    interval = 4 * math.sqrt(float(important.var() + plain.var()) / count)
    assert abs(float(important.mean() - plain.mean())) < interval
    assert float(important.var()) < 0.8 * float(plain.var())


def test_the_closed_forms_of_the_paper() -> None:
    u = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    # Of the geometric process the likelihood's times are uniform.
    torch.testing.assert_close(ImportanceSampling(GeometricVP()).draw("ll", u).t, u, rtol=0, atol=1e-12)
    # Of the linear one those of the unweighted loss are quantiles of a normal law: ∫ e^{−β₀t − ½Δβt²} dt.
    low, slope, first = 0.1, 19.9, 0.01
    root = math.sqrt(slope / 2)
    start, end = (math.erf(root * (t + low / slope)) for t in (first, 1.0))
    expected = torch.erfinv(start + u * (end - start)) / root - low / slope
    drawn = ImportanceSampling(ContinuousVP()).draw("unweighted", u)
    torch.testing.assert_close(drawn.t, expected, rtol=0, atol=1e-9)


def test_first_times() -> None:
    assert ImportanceSampling(GeometricVP()).first == 0
    assert ImportanceSampling(ContinuousVP()).first == 0.01
    assert ImportanceSampling(ContinuousVP(), 0.05).first == 0.05
    for first in (0.0, 1.0, -0.1):
        with pytest.raises(UsageError, match="no time of this process"):
            ImportanceSampling(ContinuousVP(), first)
    with pytest.raises(UsageError, match="variance-preserving"):
        ImportanceSampling(SubVP())
