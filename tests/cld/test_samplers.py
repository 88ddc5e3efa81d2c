"""Samplers in phase space: measured orders, exact laws, and who refuses what."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma import sample
from trilemma.errors import UsageError
from trilemma.testing.law import state_law
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.orders import SLACK, phase_law_error
from trilemma_plugins.cld.gddim import GDDIM
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.cld.splitting import linear_flow, stationary_covariance
from trilemma_plugins.cld.sscs import SSCS
from trilemma_plugins.ddpm.process import ContinuousVP
from trilemma_plugins.processes.exploding import VE
from trilemma_plugins.solvers.euler_maruyama import EulerMaruyama

CONSTANT, LINEAR = CLD(), CLD(schedule="linear", beta_min=0.1, beta_max=8.0)
SAMPLERS = [
    SSCS(),
    SSCS(score="midpoint"),
    SSCS(hold="x0"),
    SSCS(score="midpoint", hold="x0"),
    GDDIM(points=1),
    GDDIM(points=2),
    GDDIM(points=3),
    GDDIM(3, "eps"),
    EulerMaruyama(),
]


@pytest.mark.parametrize("process", [CONSTANT, LINEAR], ids=("constant", "linear"))
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_orders(sampler, process):
    first = 240 if sampler == GDDIM(3, "eps") else 80  # its errors of long steps grow, and fall the faster
    coarse, fine = (phase_law_error(sampler, process, steps) for steps in (first, 3 * first))
    assert math.log(coarse / fine, 3) == pytest.approx(sampler.order, abs=SLACK)


def variance_of_x(sampler, steps):
    tableau = sampler.plan(CONSTANT, sampler.times(CONSTANT, steps))
    return float(state_law(tableau, CONSTANT, 0.0, 0.25)[1][0, 0])


@pytest.mark.parametrize("inverse_mass", [4.0, 1.0])
@pytest.mark.parametrize("integral", [1e-4, 0.02, 0.7, 3.0])
def test_the_linear_part_is_that_of_its_equation(integral, inverse_mass):
    """d(x, v) = [[0, −1/M], [1, −Γ/M]] (x, v) dB + (0, √(2Γ)) dW, solved by matrix exponentials (Van Loan)."""
    process = CLD(inverse_mass=inverse_mass)
    a = torch.tensor(0.9, dtype=torch.float64)
    b = a - integral / process.beta
    S = stationary_covariance(process)
    psi, factor = linear_flow(process, S, a, b)
    drift = torch.tensor([[0, -inverse_mass], [1, -process.damping * inverse_mass]], dtype=torch.float64)
    noise = torch.diag(torch.tensor([0, 2 * process.damping], dtype=torch.float64))
    block = torch.zeros(4, 4, dtype=torch.float64)
    block[:2, :2], block[:2, 2:], block[2:, 2:] = -drift, noise, drift.T
    exponential = torch.linalg.matrix_exp(block * integral)
    expected = exponential[2:, 2:].T
    torch.testing.assert_close(psi, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(factor @ factor.T, expected @ exponential[:2, 2:], rtol=1e-7, atol=1e-13)
    torch.testing.assert_close(psi @ S @ psi.mT + factor @ factor.mT, S)


def test_half_flows_have_their_own_halves():
    """Two half flows that are merged are the two, under a β that changes."""
    S = stationary_covariance(LINEAR)
    a, m, b = torch.tensor([0.8, 0.6, 0.3], dtype=torch.float64)
    (first, L1), (then, L2), (whole, L) = (linear_flow(LINEAR, S, *pair) for pair in ((a, m), (m, b), (a, b)))
    torch.testing.assert_close(then @ first, whole)
    torch.testing.assert_close(then @ L1 @ L1.mT @ then.mT + L2 @ L2.mT, L @ L.mT)


@pytest.mark.parametrize("parameterization", ["eps", "score", "x0"])
@pytest.mark.parametrize(
    "name", ["sscs", "sscs:score=midpoint,last=denoise", "sscs:hold=x0", "gddim:points=3", "euler-maruyama"]
)
def test_a_network_may_put_out_what_it_likes(name, parameterization):
    def drawn(parameterization):
        model = GaussianMixtureDenoiser(CONSTANT, parameterization=parameterization)
        return sample(model, 5, sampler=name, steps=12, seed=3, dtype=torch.float64).samples

    torch.testing.assert_close(drawn(parameterization), drawn("score"), rtol=1e-3, atol=1e-3)


def test_samplers_of_one_component_refuse_phase_space():
    model = GaussianMixtureDenoiser(CONSTANT)
    with pytest.raises(UsageError, match=r"ddim does not run on 2 components, which CLD has") as error:
        sample(model, sampler="ddim", steps=4)
    for name in ("sscs", "gddim", "euler-maruyama", "rk"):
        assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert "dpmpp" not in str(error.value)


def test_samplers_of_phase_space_refuse_one_component():
    model = GaussianMixtureDenoiser(ContinuousVP())
    with pytest.raises(UsageError, match=r"sscs does not run on 1 component,.*ddim"):
        sample(model, sampler="sscs", steps=4)


def test_a_process_that_does_not_rest_is_refused():
    with pytest.raises(UsageError, match="keeps its prior"):
        stationary_covariance(VE())


@pytest.mark.parametrize(
    ("made", "options"),
    [(SSCS, {"score": "end"}), (SSCS, {"hold": "v"}), (SSCS, {"last": "none"}), (GDDIM, {"points": 4})],
)
def test_options_out_of_range_are_refused(made, options):
    with pytest.raises(UsageError, match="give"):
        made(**options)


@pytest.mark.parametrize(
    ("sampler", "known"),
    [(SSCS(), (0.2287, 0.2427, 0.2481)), (EulerMaruyama(grid="linspace"), (0.2795, 0.2566, 0.2525))],
    ids=("sscs", "euler-maruyama"),
)
def test_the_variance_of_the_samples_is_the_known_one(sampler, known):
    """Known from draws, so to three standard errors of 10⁵ of them or so; exact here."""
    found = [variance_of_x(sampler, steps) for steps in (50, 150, 500)]
    assert found == pytest.approx(known, abs=1e-3)


def test_fifty_steps_along_the_flow_beat_five_hundred_of_the_splitting():
    assert abs(variance_of_x(GDDIM(3), 50) - 0.25) < abs(variance_of_x(SSCS(), 500) - 0.25)


@pytest.mark.parametrize("score", ["start", "midpoint"])
def test_a_kick_that_holds_x0_does_not_overshoot(score):
    """On data of variance 10⁻⁴ and ten steps, where one that holds the score is thrown far away."""

    def variance(hold):
        sampler = SSCS(score=score, hold=hold, grid="squares")
        tableau = sampler.plan(CONSTANT, sampler.times(CONSTANT, 10))
        return float(state_law(tableau, CONSTANT, 0.0, 1e-4)[1][0, 0])

    assert variance("x0") < 0.01 < 0.1 * variance("score")


def test_one_point_is_met_in_any_number_of_steps():
    for points in (1, 2, 3):
        sampler = GDDIM(points)
        for steps in (2, 3, 7):
            times = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
            mean, cov = state_law(sampler.plan(CONSTANT, times), CONSTANT, 0.7, 0.0)
            mu, expected = CONSTANT.moments(times[-1])
            torch.testing.assert_close(mean, 0.7 * mu, rtol=0, atol=1e-6)
            torch.testing.assert_close(cov, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "leading", (0.9, 0.6, 0.3, 0.1)])
def test_a_grid_that_begins_below_the_prior_pays_nothing_for_the_first_half_of_the_linear_part(grid):
    """The row before the first kick reads no prediction."""
    model = GaussianMixtureDenoiser(CLD(), parameterization="eps", shape=(1, 2, 2))
    drawn = sample(model, 400, sampler=SSCS(grid=grid), steps=4, dtype=torch.float32)
    assert drawn.provenance["nfe"] == SSCS(grid=grid).nfe(4) == 4
    assert bool(drawn.samples.isfinite().all())
