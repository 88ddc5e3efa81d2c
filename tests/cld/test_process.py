"""The moments in phase space against their own differential equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from trilemma.errors import UsageError
from trilemma.testing import run_checks
from trilemma_plugins.cld.process import CLD

REFERENCE = CLD(inverse_mass=4.0, beta=4.0, gamma=0.04)
masses = st.floats(0.3, 6)
frictions = st.one_of(st.none(), st.floats(0.2, 4))
gammas = st.floats(0.01, 1)


def equation(process, t):
    """F and G Gᵀ, from the stochastic equation and not from the process's own."""
    m, friction, beta = process.inverse_mass, process.damping, float(process.rate(torch.tensor(t)))
    return beta * np.array([[0, m], [-1, -friction * m]]), beta * np.diag([0, 2 * friction])


def start(process):
    return np.array([1.0, 0.0]), np.diag([0, process.gamma / process.inverse_mass])


def by_exponentials(process, t):
    """vec P' = (F ⊗ 1 + 1 ⊗ F) vec P + vec D, its right side made linear by a constant 1; nothing grows in it."""
    F, D = equation(process, 0.0)
    mean, cov = start(process)
    one = np.eye(2)
    block = np.zeros((5, 5))
    block[:4, :4], block[:4, 4] = np.kron(F, one) + np.kron(one, F), D.ravel()
    P = expm(block * t) @ np.append(cov.ravel(), 1.0)
    return expm(F * t) @ mean, P[:4].reshape(2, 2)


def by_integration(process, t):
    def slope(s, y):
        F, D = equation(process, s)
        P = y[2:].reshape(2, 2)
        return np.concatenate([F @ y[:2], (F @ P + P @ F.T + D).ravel()])

    mean, cov = start(process)
    y = solve_ivp(slope, (0, t), np.concatenate([mean, cov.ravel()]), "DOP853", rtol=1e-13, atol=1e-15).y[
        :, -1
    ]
    return y[:2], y[2:].reshape(2, 2)


def off(process, t, expected):
    found = process.moments(torch.tensor(t, dtype=torch.float64))
    return max(np.abs(a.numpy() - b).max() for a, b in zip(found, expected, strict=True))


@settings(max_examples=40, deadline=None)
@given(m=masses, friction=frictions, gamma=gammas, beta=st.floats(0.5, 5), t=st.floats(1e-5, 1))
def test_moments_under_constant_beta(m, friction, gamma, beta, t):
    process = CLD(inverse_mass=m, friction=friction, gamma=gamma, beta=beta)
    assert off(process, t, by_exponentials(process, t)) < 1e-12


@settings(max_examples=8, deadline=None)
@given(m=masses, friction=frictions, gamma=gammas, top=st.floats(1, 8), t=st.floats(1e-3, 1))
def test_moments_under_linear_beta(m, friction, gamma, top, t):
    process = CLD(m, friction, "linear", beta_min=0.1, beta_max=top, gamma=gamma)
    assert off(process, t, by_integration(process, t)) < 1e-12


def test_damping_close_to_critical_is_close_to_critical():
    t = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    exact = REFERENCE.moments(t)
    for shift in (-1e-9, 1e-9):
        found = CLD(friction=1 + shift).moments(t)
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


def test_the_known_covariance():
    cov = REFERENCE.moments(torch.tensor(0.1))[1].flatten()[[0, 1, 3]]
    expected = torch.tensor([0.221810, 0.129860, 0.215758], dtype=torch.float64)
    torch.testing.assert_close(cov, expected, rtol=0, atol=5e-7)


def test_the_published_closed_form():
    t = torch.linspace(0.02, 1, 9, dtype=torch.float64)
    B, g, Sv = 4 * t, 1.0, 0.01
    E = (-4 * B * g).exp()
    xx = E * (1 / E - 1 - 4 * B * g + 4 * B**2 * g**2 * (-2) + 16 * g**4 * B**2 * Sv)
    xv = E * (4 * g**2 * B * Sv + 4 * g * B**2 - 8 * g**3 * B**2 * Sv)
    vv = E * ((1 / E - 1) / 4 + B - 4 * g * B * Sv + 4 * g**2 * B**2 * Sv + Sv - 2 * B**2)
    mean, cov = REFERENCE.moments(t)
    torch.testing.assert_close(cov[:, 0, 0], xx, rtol=0, atol=1e-14)
    torch.testing.assert_close(cov[:, 0, 1], xv, rtol=0, atol=1e-14)
    torch.testing.assert_close(cov[:, 1, 1], vv, rtol=0, atol=1e-14)
    torch.testing.assert_close(mean, (-2 * B).exp()[:, None] * torch.stack([1 + 2 * B, -B], -1))


def test_close_to_the_data_nothing_cancels():
    t = torch.tensor([1e-5], dtype=torch.float32)
    cov = REFERENCE.moments(t)[1][0]
    assert cov.dtype == torch.float64
    assert float(cov[0, 0]) == pytest.approx(2.566e-10, abs=5e-14)
    tiny = torch.logspace(-8, -3, 30, dtype=torch.float64)
    assert bool((torch.linalg.cholesky(REFERENCE.moments(tiny)[1]).diagonal(dim1=-2, dim2=-1) > 0).all())
    # of a step in which the velocity starts known, xx = 2Γm²B³/3 to first order, and so the rest
    Q, B = REFERENCE.transition(torch.zeros_like(tiny), tiny)[1], 4 * tiny
    torch.testing.assert_close(Q[:, 0, 0], 32 / 3 * B**3, rtol=0.02, atol=0)
    torch.testing.assert_close(Q[:8, 0, 0], 32 / 3 * B[:8] ** 3, rtol=3e-6, atol=0)


@pytest.mark.parametrize(
    "process",
    [
        REFERENCE,
        CLD(1.7, 0.4, beta=16.0),
        CLD(1.7, 4.0, beta=16.0),
        CLD(schedule="linear", beta_min=0.1, beta_max=12.0),
    ],
    ids=("critical", "under", "over", "linear"),
)
def test_the_kit_passes(process):
    assert [record for record in run_checks("process", process) if record.failed] == []


@pytest.mark.parametrize(
    "options", [{"schedule": "cosine"}, {"inverse_mass": 0.0}, {"gamma": -1}, {"beta_min": 9.0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match="cld"):
        CLD(**options)
