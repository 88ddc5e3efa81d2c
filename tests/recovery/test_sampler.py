"""Chains of recovery likelihood on Gaussian data, where every law is known."""

from __future__ import annotations

import math

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.recovery.levels import transitions
from trilemma_plugins.recovery.sampler import RecoveryLangevin

LINEAR = DiscreteVP("linear")
TIMES = torch.tensor([1.0, 0.501, 0.401, 0.301, 0.201, 0.101, 0.0], dtype=torch.float64)


def test_the_levels_are_the_papers():
    """Of 2012.08125, from the finest level on: a, σ, and s² = h a²."""
    found = transitions(LINEAR, TIMES, 2e-4)[::-1]
    a = [0.94617, 0.85629, 0.7748, 0.70092, 0.63396]
    sigma = [0.32368, 0.5165, 0.63221, 0.71324, 0.77337]
    s2 = [2.095e-5, 0.001728, 0.004686, 0.00792, 0.01074, 0.0192]
    assert [entry.a for entry in found[:-1]] == pytest.approx(a, abs=1e-5)
    assert [entry.sigma for entry in found[:-1]] == pytest.approx(sigma, abs=1e-5)
    assert [entry.step * entry.a**2 for entry in found] == pytest.approx(s2, rel=1e-3)
    assert found[-1].a == 1
    assert math.isinf(found[-1].sigma)


def test_a_long_chain_has_the_law_of_unadjusted_langevin():
    """One transition: the mean of the posterior, and 1/(κ(1 − hκ/4)) for its variance 1/κ."""
    variance, start, step = 0.25, 0.8, 0.005
    model = GaussianDenoiser(LINEAR, [0.0], variance, "eps", (1, 20, 20))
    times = torch.tensor([0.401, 0.301], dtype=torch.float64)
    (entry,) = transitions(LINEAR, times, step)
    of_level = float(LINEAR.alpha(times[1:]).square() * variance + LINEAR.sigma(times[1:]).square())
    kappa = 1 / of_level + entry.a**2 * entry.pull
    assert entry.step * kappa > 0.1
    sampler = RecoveryLangevin(chain=100, step=step, noise=1.0, grid=(0.401, 0.301))
    seen = []
    trilemma.sample(
        model,
        100,
        sampler=sampler,
        steps=2,
        latent=torch.full((100, 1, 20, 20), start, dtype=torch.float64),
        dtype=torch.float64,
        callback=lambda done, *_: seen.append(_[-1].clone()) if done == 101 else None,
    )
    drawn = torch.cat(seen)
    assert float(drawn.var()) == pytest.approx(1 / (kappa * (1 - entry.step * kappa / 4)), rel=0.02)
    assert float(drawn.mean()) == pytest.approx(entry.a * entry.pull * start / kappa, abs=0.01)


def test_long_chains_of_short_steps_end_at_the_data():
    """The error of the variance is of the first order in the step, and nothing is left of it at step 0."""
    (centre, coarse), (_, fine) = (law_of(chain, 4 / chain) for chain in (1000, 2000))
    assert centre == pytest.approx(0.3, abs=0.01)
    assert fine - 0.2501 < 0.65 * (coarse - 0.2501)
    assert 2 * fine - coarse == pytest.approx(0.2501, rel=0.04)


def law_of(chain: int, step: float) -> tuple[float, float]:
    """The mean and variance of a plan's samples, row by row, with the exact score of N(0.3, 0.25)."""
    mean, variance = 0.3, 0.25
    rows = RecoveryLangevin(chain=chain, step=step, noise=1.0).plan(LINEAR, TIMES).rows
    levels = {row.t: LINEAR.levels(torch.tensor([row.t], dtype=torch.float64)) for row in rows}
    # Of z, of z̃, and their covariance.
    centre, spread, first, wide, shared = 0.0, 1.0, 0.0, 1.0, 1.0
    for row in rows:
        alpha, sigma = map(float, levels[row.t])
        if not row.B:
            first, wide = centre, spread
            centre, spread, shared = row.A * centre, row.A**2 * spread, row.A * spread
            continue
        D = row.D[0][1] if row.D else 0.0
        total = alpha**2 * variance + sigma**2
        h = row.B[0][1]
        slope = row.A - h / total
        offset = h * alpha * mean / total
        spread = slope**2 * spread + D**2 * wide + 2 * slope * D * shared + row.C**2
        centre, shared = slope * centre + D * first + offset, slope * shared + D * wide
    return centre, spread


def test_the_state_that_pulls_is_the_one_that_the_chain_began_with():
    rows = RecoveryLangevin(chain=3).plan(LINEAR, TIMES).rows
    assert [row.D[0][0] if row.D else None for row in rows[4:8]] == [None, 1, 2, 3]


@pytest.mark.parametrize("options", [{"chain": 0}, {"step": 0.0}, {"noise": -1.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        RecoveryLangevin(**options)
