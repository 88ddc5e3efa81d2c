"""Steps by name against their own equations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from trilemma.engine.noise import keyed_normal
from trilemma.numerics.normal import STEP
from trilemma.ops import ddim_step, euler_maruyama_step, sscs_step
from trilemma.ops.named_steps import _damped_flow

T, S = (math.cos(1.1), math.sin(1.1)), (math.cos(0.7), math.sin(0.7))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("clip", [None, 0.8])
def test_ddim_with_guidance(eta: float, clip: float | None) -> None:
    z, output = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(6, 4, 5, dtype=torch.float64)
    indices = torch.arange(3)
    cond, null = output.chunk(2)
    eps = null + 2.5 * (cond - null)
    x0 = (z - T[1] * eps) / T[0]
    if clip is not None:
        x0 = x0.clamp(-clip, clip)
    eps = (z - T[0] * x0) / T[1]
    c1 = eta * (S[1] / T[1]) * math.sqrt(1 - (T[0] / S[0]) ** 2)
    noise = keyed_normal(5, indices, 9, (4, 5), STEP, torch.float64)
    expected = S[0] * x0 + math.sqrt(S[1] ** 2 - c1**2) * eps + c1 * noise
    stepped = ddim_step(z, output, T, S, eta=eta, scale=2.5, clip=clip, seed=5, step=9, indices=indices)
    torch.testing.assert_close(stepped, expected)


def test_the_last_step_of_ddim_is_the_prediction() -> None:
    z, v = torch.randn(2, 7, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64)
    stepped = ddim_step(z, v, T, (1.0, 0.0), parameterization="v")
    torch.testing.assert_close(stepped, T[0] * z - T[1] * v)


@pytest.mark.parametrize("inverse_mass", [4.0, 1.0])
@pytest.mark.parametrize("integral", [1e-4, 0.02, 0.7, 3.0])
def test_the_damped_flow_is_that_of_its_equation(integral: float, inverse_mass: float) -> None:
    """d(x, v) = [[0, −1/M], [1, −Γ/M]] (x, v) dB + (0, √(2Γ)) dW, solved by matrix exponentials (Van Loan)."""
    friction = 2 * math.sqrt(1 / inverse_mass)
    drift = torch.tensor([[0, -inverse_mass], [1, -friction * inverse_mass]], dtype=torch.float64)
    noise = torch.diag(torch.tensor([0, 2 * friction], dtype=torch.float64))
    block = torch.zeros(4, 4, dtype=torch.float64)
    block[:2, :2], block[:2, 2:], block[2:, 2:] = -drift, noise, drift.T
    exponential = torch.linalg.matrix_exp(block * integral)
    psi = exponential[2:, 2:].T
    covariance = psi @ exponential[:2, 2:]
    flow, factor = _damped_flow(integral, friction)
    torch.testing.assert_close(flow, psi, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=1e-7, atol=1e-13)


def test_two_flows_are_one() -> None:
    z, score = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    still = torch.zeros_like(z)
    kick, flow = 0.1, 0.24
    whole = sscs_step(z, score, kick, flow, noise=still)
    half = sscs_step(z, score, kick, flow / 2, noise=still)
    torch.testing.assert_close(sscs_step(half, score, 0.0, flow / 2, noise=still), whole)
    x, v = z.chunk(2, 1)
    kicked = torch.cat([x, v + 2 * kick * (score + 4 * v)], 1)
    torch.testing.assert_close(sscs_step(z, score, kick, 0.0), kicked)


def test_euler_maruyama() -> None:
    z, score = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    noise = torch.randn_like(z)
    x, v = z.chunk(2, 1)
    delta = 0.03
    expected_v = v + delta * (x + 4 * v + 2 * score) + math.sqrt(2 * delta) * noise.chunk(2, 1)[1]
    expected = torch.cat([x - 4 * delta * v, expected_v], 1)
    torch.testing.assert_close(euler_maruyama_step(z, score, delta, noise=noise), expected)


@pytest.mark.parametrize(
    ("steps", "sscs", "em"), [(50, 0.2287, 0.2795), (150, 0.2427, 0.2566), (500, 0.2481, 0.2525)]
)
def test_variances_of_the_analytic_case(steps: int, sscs: float, em: float) -> None:
    """Data N(0, ¼), exact score, linear grid: the variance of x in closed form, near figures found by sampling."""
    assert _final_variance(steps, splitting=True) == pytest.approx(sscs, abs=8e-4)
    assert _final_variance(steps, splitting=False) == pytest.approx(em, abs=8e-4)


BETA, GAMMA_M, VARIANCE = 4.0, 0.04 * 0.25, 0.25


def _forward_covariance(t: float) -> torch.Tensor:
    """Covariance of (x, v) at forward time t, from the linear equation of the moments."""
    drift = BETA * torch.tensor([[0.0, 4.0], [-1.0, -4.0]], dtype=torch.float64)
    psi = torch.linalg.matrix_exp(drift * t)
    prior = torch.diag(torch.tensor([1.0, 0.25], dtype=torch.float64))
    start = torch.diag(torch.tensor([VARIANCE, GAMMA_M], dtype=torch.float64))
    return prior + psi @ (start - prior) @ psi.T


def _final_variance(steps: int, splitting: bool) -> float:
    """Pushes the columns of a basis and of the noise through the steps: each is linear in (z, ξ)."""
    covariance = torch.diag(torch.tensor([1.0, 0.25], dtype=torch.float64))
    end = 1e-3
    grid = torch.linspace(1, end, steps, dtype=torch.float64).tolist()
    basis = torch.eye(2, dtype=torch.float64)
    zero = torch.zeros(2, 2, dtype=torch.float64)

    def advance(covariance: torch.Tensor, step: object) -> torch.Tensor:
        matrix = step(basis, zero).T  # type: ignore[operator]  # a row a basis vector
        factor = step(zero, basis).T  # type: ignore[operator]
        return matrix @ covariance @ matrix.T + factor @ factor.T

    def score_at(t: float) -> torch.Tensor:
        return -torch.linalg.inv(_forward_covariance(t))[1]

    def scores(z: torch.Tensor, t: float) -> torch.Tensor:
        return (z @ score_at(t))[:, None]

    for here, there in itertools.pairwise(grid):
        delta = BETA * (here - there)
        if splitting:
            half = delta / 2

            def flow(z: torch.Tensor, noise: torch.Tensor, half: float = half) -> torch.Tensor:
                return sscs_step(z, torch.zeros_like(z[:, :1]), 0.0, half, noise=noise)

            def kick(
                z: torch.Tensor, noise: torch.Tensor, here: float = here, delta: float = delta
            ) -> torch.Tensor:
                return sscs_step(z, scores(z, here), delta, 0.0, noise=noise)

            covariance = advance(covariance, flow)
            covariance = advance(covariance, kick)
            covariance = advance(covariance, flow)
        else:

            def euler(
                z: torch.Tensor, noise: torch.Tensor, here: float = here, delta: float = delta
            ) -> torch.Tensor:
                return euler_maruyama_step(z, scores(z, here), delta, noise=noise)

            covariance = advance(covariance, euler)

    def last(z: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return euler_maruyama_step(z, scores(z, end), BETA * end, noise=noise, noisy=False)

    return float(advance(covariance, last)[0, 0])
