"""Chains of recovery likelihood on Gaussian data, where every law is known."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.law import state_law
from trilemma.testing.parametrizing import parametrize_with_checks
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.recovery.levels import transitions
from trilemma_plugins.recovery.sampler import RecoveryLangevin

LINEAR = DiscreteVP("linear")
PAPER = (1.0, 0.501, 0.401, 0.301, 0.201, 0.101)
TIMES = torch.tensor([*PAPER, 0.0], dtype=torch.float64)


@parametrize_with_checks(
    ["recovery-langevin:chain=3,end=0.05,step=0.02", RecoveryLangevin(chain=3, grid=PAPER)]
)
def test_conformance(check):
    check()


def test_the_levels_are_the_papers():
    """Of 2012.08125, from the finest level on: a, σ, σ of the levels, and s² = h a²."""
    found = transitions(LINEAR, TIMES, 2e-4)[::-1]
    ends = torch.tensor([entry.time for entry in found] + [1.0], dtype=torch.float64)
    # The first of the paper's seven is from the data to the finest level.
    first = LINEAR.alpha_sigma(ends[:1])
    a = [0.99995, 0.94617, 0.85629, 0.7748, 0.70092, 0.63396, 0.02278]
    sigma = [0.01, 0.32368, 0.5165, 0.63221, 0.71324, 0.77337, 0.99974]
    of_levels = [0.01, 0.32382, 0.58622, 0.77845, 0.89801, 0.96031, 0.99998]
    s2 = [2.095e-5, 0.001728, 0.004686, 0.00792, 0.01074, 0.0192]
    assert [float(first[0]), *[entry.a for entry in found]] == pytest.approx(a, abs=1e-5)
    assert [float(first[1]), *[entry.sigma for entry in found]] == pytest.approx(sigma, abs=1e-5)
    assert LINEAR.sigma(ends).tolist() == pytest.approx(of_levels, abs=1e-5)
    assert [entry.scale for entry in found] == pytest.approx(s2, rel=1e-3)
    assert [entry.from_prior for entry in found] == [False] * 5 + [True]
    assert (found[-1].begin, found[-1].keep, found[-1].pull) == (1.0, 1.0, 0.0)
    assert found[0].step == pytest.approx(found[0].scale / found[0].a ** 2, rel=1e-12)


def test_a_long_chain_on_a_quadratic_energy_has_the_variance_of_unadjusted_langevin():
    """1/(κ(1 − s²κ/4)); κ = 3, s² = 0.2: 0.39216. Chains of steps drawn by the engine, and the law of their plan."""
    expected = 1 / (3 * (1 - 0.2 * 3 / 4))
    assert expected == pytest.approx(0.39216, abs=1e-5)
    # The marginal of N(0, s²) at the last level has the precision 3; from the prior there is no pull.
    end = 0.03
    alpha, sigma = (float(entry) for entry in LINEAR.alpha_sigma(torch.tensor([end], dtype=torch.float64)))
    variance = (1 / 3 - sigma**2) / alpha**2
    sampler = RecoveryLangevin(
        chain=60, step=0.2 / LINEAR.transition(*torch.tensor([[end], [1.0]]))[1].item(), noise=1.0, end=end
    )
    (level,) = transitions(LINEAR, torch.tensor([1.0, 0.0], dtype=torch.float64), sampler.step, end)
    assert level.step == pytest.approx(0.2, rel=1e-6)
    model = GaussianDenoiser(LINEAR, [0.0], variance, "eps", (1, 20, 20))
    seen: list[torch.Tensor] = []
    trilemma.sample(
        model, 400, sampler=sampler, steps=1, dtype=torch.float64, batch_size=400,
        callback=lambda done, *_: seen.append(_[-1].clone()) if done == 61 else None,
    )  # fmt: skip
    assert float(torch.cat(seen).var()) == pytest.approx(expected, rel=0.01)


def test_gaussian_data_have_the_exact_posterior():
    """One transition: the mean of the posterior, and 1/(κ(1 − hκ/4)) for its variance 1/κ."""
    variance, start, step = 0.25, 0.8, 0.005
    model = GaussianDenoiser(LINEAR, [0.0], variance, "eps", (1, 20, 20))
    times = torch.tensor([0.401, 0.301, 0.0], dtype=torch.float64)
    entry = transitions(LINEAR, times, step)[0]
    of_level = float(LINEAR.alpha(times[1:2]).square() * variance + LINEAR.sigma(times[1:2]).square())
    kappa = 1 / of_level + entry.a**2 / entry.sigma**2
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
    assert float(drawn.mean()) == pytest.approx(entry.a / entry.sigma**2 * start / kappa, abs=0.01)


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
    levels = {row.t: LINEAR.alpha_sigma(torch.tensor([row.t], dtype=torch.float64)) for row in rows}
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
        slope, offset = row.A - h / total, h * alpha * mean / total
        spread = slope**2 * spread + D**2 * wide + 2 * slope * D * shared + row.C**2
        centre, shared = slope * centre + D * first + offset, slope * shared + D * wide
    return centre, spread


def test_by_curvature_the_least_width_is_exact_at_every_level():
    """Of data at one point: h κ = b on each level, and c = √(1 − b/4) leaves 1/κ."""
    cosine, b = DiscreteVP("cosine"), 1.0
    times = torch.tensor([1.0, 0.9482, 0.8646, 0.6696, 0.3721, 0.156, 0.0], dtype=torch.float64)
    for entry in transitions(cosine, times, b, 0.06, "curvature"):
        kappa = 1 / float(cosine.sigma(torch.tensor([entry.time]).double())) ** 2
        kappa += 0.0 if entry.from_prior else (entry.a / entry.sigma) ** 2
        assert entry.step * kappa == pytest.approx(b, rel=1e-6)
        # The stationary variance of z ← (1 − hκ/2) z + c √h ξ.
        slope = entry.keep - entry.step / 2 / entry.noise**2
        assert (1 - b / 4) * entry.step / (1 - slope**2) == pytest.approx(1 / kappa, rel=1e-6)


def test_the_state_that_pulls_is_the_one_that_the_chain_began_with():
    rows = RecoveryLangevin(chain=3).plan(LINEAR, TIMES).rows
    assert [row.D[0][0] if row.D else None for row in rows[4:8]] == [None, 1, 2, 3]


def test_with_a_last_level_of_its_own_the_samples_are_the_means_of_its_states():
    """Of N(0, s²): states of variance v at the last level become E[x₀ | z] of variance (α s²/v)² v."""
    end = torch.tensor([0.05], dtype=torch.float64)
    alpha, sigma = (float(entry) for entry in LINEAR.alpha_sigma(end))
    long = {"chain": 300, "step": 0.02, "noise": 1.0, "end": 0.05}
    plan = RecoveryLangevin(**long).plan(LINEAR, TIMES)
    mean = type(plan)(plan.rows[:-1], plan.parameterization)
    before, after = (float(state_law(entry, LINEAR, 0.0, 0.25)[1]) for entry in (mean, plan))
    slope = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
    assert after == pytest.approx(slope**2 * before, rel=1e-9)
    assert plan.ends()[-1] == 0.0
    assert RecoveryLangevin(**long).nfe(6) == 6 * 300 + 1


@pytest.mark.parametrize(
    "options",
    [
        {"chain": 0},
        {"chain": True},
        {"step": 0.0},
        {"noise": -1.0},
        {"rule": "width"},
        {"end": 1.0},
        {"end": -0.1},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        RecoveryLangevin(**options)


def test_a_last_level_above_others_is_refused():
    with pytest.raises(UsageError, match=r"end=0.2 is not below 0.101"):
        RecoveryLangevin(end=0.2).plan(LINEAR, TIMES)
