"""The processes against their papers' formulas, their own differences, and the conformance checks."""

from __future__ import annotations

import math

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.testing import checks
from trilemma_plugins.processes.exploding import EDM, VE
from trilemma_plugins.processes.flow import Flow
from trilemma_plugins.processes.sub_vp import SubVP

PROCESSES = [SubVP(), VE(), EDM(), Flow(), Flow(shift=3.0)]
INNER = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{spec}: {name}")
        for spec in ("sub-vp", "ve", "edm", "flow", "flow:shift=3.0")
        for name, check in checks("process", spec)
    ],
)
def test_conformance(name: str, check) -> None:
    check()


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_time_zero_is_the_data(process: Process) -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert (process.alpha(zero).item(), process.sigma(zero).item()) == (1.0, 0.0)
    assert process.time_of_log_snr(torch.tensor(math.inf, dtype=torch.float64)) == 0
    assert process.time_of_log_snr(torch.tensor(-math.inf, dtype=torch.float64)) == 1


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_log_snr_is_that_of_the_moments_and_its_inverse_is_exact(process: Process) -> None:
    t = torch.cat([torch.logspace(-7, -2, 20, dtype=torch.float64), INNER])
    moments = 2 * (process.alpha(t) / process.sigma(t)).log()
    torch.testing.assert_close(process.log_snr(t), moments, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(process.time_of_log_snr(process.log_snr(t)), t, rtol=1e-10, atol=0)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("start", [1e-3, 0.3, 0.9])
def test_a_short_transition_keeps_its_digits(process: Process, start: float) -> None:
    """For s close to t, Q is the integral of G²: the plain difference of variances has lost half its digits there."""
    s = torch.tensor([start], dtype=torch.float64)
    t = s + 1e-9
    step, middle = t - s, (s + t) / 2
    psi, Q = (entry.item() for entry in process.transition(s, t))
    F, G = process.drift(middle).item(), process.diffusion(middle).item()
    assert pytest.approx(G * G * step.item(), rel=1e-7) == Q
    assert psi == pytest.approx(1 + F * step.item(), rel=1e-13)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_transitions_compose(process: Process) -> None:
    s, t, u = INNER[10:40], INNER[40:70], INNER[69:99]
    (psi_1, Q_1), (psi_2, Q_2) = process.transition(s, t), process.transition(t, u)
    psi, Q = process.transition(s, u)
    torch.testing.assert_close(psi_2 * psi_1, psi, rtol=1e-12, atol=0)
    torch.testing.assert_close(psi_2.square() * Q_1 + Q_2, Q, rtol=1e-11, atol=0)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_the_closed_diffusion_is_that_of_the_moments(process: Process) -> None:
    torch.testing.assert_close(process.drift(INNER), Process.drift(process, INNER), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(process.diffusion(INNER), Process.diffusion(process, INNER), rtol=1e-7, atol=0)


def test_the_papers_formulas() -> None:
    t = INNER
    integral = 0.1 * t + 19.9 * t.square() / 2
    torch.testing.assert_close(SubVP().alpha(t), (-integral / 2).exp())
    torch.testing.assert_close(SubVP().sigma(t), 1 - (-integral).exp())
    geometric = 0.01 * (50 / 0.01) ** t
    torch.testing.assert_close(VE().sigma(t).square() + 0.01**2, geometric.square())
    torch.testing.assert_close(VE().diffusion(t)[..., 0, 0], geometric * math.sqrt(2 * math.log(50 / 0.01)))
    torch.testing.assert_close(EDM().sigma(t), 80 * t)
    torch.testing.assert_close(Flow().alpha(t) + Flow().sigma(t), torch.ones_like(t))
    torch.testing.assert_close(Flow(shift=3.0).sigma(t), 3 * t / (1 + 2 * t))


def test_nothing_of_the_data_is_left_at_the_end_of_a_flow() -> None:
    one = torch.ones((), dtype=torch.float64)
    for process in (Flow(), Flow(shift=3.0)):
        assert (process.alpha(one), process.sigma(one)) == (0, 1)
        assert process.log_snr(one) == -math.inf
        assert process.drift(one) == -math.inf
        assert process.diffusion(one) == math.inf


def test_priors_have_the_level_of_the_last_time() -> None:
    noise = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for process in PROCESSES:
        last = process.sigma(torch.ones((), dtype=torch.float64)).item()
        torch.testing.assert_close(process.prior(noise), noise * last, rtol=1e-4, atol=0)


def test_the_grid_of_edm_is_the_papers() -> None:
    """σ_i = (σ_max^{1/7} + i/(S−1) (σ_min^{1/7} − σ_max^{1/7}))⁷, equation 5."""
    process = EDM()
    place = torch.linspace(0, 1, 18, dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + place * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = trilemma.sampler("ddim:grid=karras").times(process, 18)
    torch.testing.assert_close(process.sigma(times[:-1]), sigmas, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "spec",
    [
        "flow:shift=0",
        "flow:shift=-1",
        "edm:sigma_min=0",
        "edm:sigma_max=0.001",
        "ve:sigma_min=60",
        "sub-vp:beta_min=0",
    ],
)
def test_bad_options_are_refused_in_one_line(spec: str) -> None:
    with pytest.raises(UsageError, match=r"expected|give") as error:
        trilemma.process(spec)
    assert "\n" not in str(error.value)
