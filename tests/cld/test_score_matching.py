"""Score matching in phase space: what is drawn, what is asked for, and how it is weighed."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.cld.score_matching import DenoisingScoreMatching, HybridScoreMatching
from trilemma_plugins.ddpm.process import ContinuousVP

PROCESSES = [CLD(), CLD(schedule="linear"), CLD(inverse_mass=2.0, friction=0.5)]
BOTH = [HybridScoreMatching(), DenoisingScoreMatching()]
DRAWN = 100_000


def drawn(process: Process, x0: float, t: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2 * process.components, DRAWN, 1, 1, 1, generator=generator, dtype=torch.float64)
    data = torch.full((DRAWN, 1, 1, 1), x0, dtype=torch.float64)
    return data, torch.full((DRAWN,), t, dtype=torch.float64), noise.unbind()


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.name)
@pytest.mark.parametrize("t", [0.02, 0.4])
def test_states_have_the_process_s_law_and_targets_the_score_s_mean(process, objective, t):
    """Of one x₀ both score targets have −L_KK ∇_v log q(z | x₀) = L_KK (Σ⁻¹ (z − μ x₀))_K as their regression on z."""
    data, times, noise = drawn(process, 0.7, t)
    z, target, _ = objective.targets(process, data, times, noise)
    mean, cov = process.moments(times[0])
    away = z.flatten(1) - 0.7 * mean
    scale = cov.diagonal().sqrt()
    assert float((away.mean(0) / scale).abs().max()) < 5 / math.sqrt(DRAWN)
    relative = torch.cov(away.T) / (scale[:, None] * scale)
    expected = cov / (scale[:, None] * scale)
    assert float((relative - expected).abs().max()) < 5 * math.sqrt(2 / DRAWN)
    white = away @ torch.linalg.inv(torch.linalg.cholesky(cov)).T
    found = white.T @ target.flatten() / DRAWN
    assert found.tolist() == pytest.approx([0.0, 1.0], abs=5 * float(target.std()) / math.sqrt(DRAWN))


def test_the_hybrid_target_is_a_function_of_the_state_and_the_denoising_one_is_not():
    process = CLD()
    data, times, noise = drawn(process, 0.7, 0.1)
    mean, cov = process.moments(times[0])
    white = torch.linalg.inv(torch.linalg.cholesky(cov))
    for objective, exact in zip(BOTH, (True, False), strict=True):
        z, target, _ = objective.targets(process, data, times, noise)
        score = ((z.flatten(1) - 0.7 * mean) @ white.T)[:, 1]
        assert (float((target.flatten() - score).abs().max()) < 1e-9) is exact


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.name)
def test_the_residual_of_no_answer_is_the_noise(objective):
    """Unweighted, in units of the noise of the transition that was drawn."""
    data, times, noise = drawn(CLD(), 0.7, 0.1)
    _, target, weight = objective.targets(CLD(), data, times, noise)
    torch.testing.assert_close(weight.view(-1, 1, 1, 1) * target.square(), noise[1].square())


@pytest.mark.parametrize("objective", [HybridScoreMatching, DenoisingScoreMatching])
def test_the_weightings_are_of_one_residual(objective):
    """noise : score : likelihood as 1 : ℓ² : Γβ ℓ², ℓ = 1/L_KK of the covariance that is conditioned on."""
    process = CLD(schedule="linear")
    t = torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    data = torch.zeros(3, 1, 1, 1, dtype=torch.float64)
    noise = torch.zeros(4, 3, 1, 1, 1, dtype=torch.float64).unbind()
    base, score, likelihood = (
        objective(weighting=name).targets(process, data, t, noise)[2]
        for name in ("noise", "score", "likelihood")
    )
    cov = process.moments(t)[1]
    if objective is DenoisingScoreMatching:
        cov = process.transition(torch.zeros_like(t), t)[1]
    ell = 1 / torch.linalg.cholesky(cov)[:, 1, 1]
    torch.testing.assert_close(score / base, ell.square())
    torch.testing.assert_close(likelihood / base, process.damping * process.rate(t) * ell.square())


@pytest.mark.parametrize("parameterization", ["eps", "score", "x0"])
def test_the_likelihood_weighting_is_the_bound(parameterization):
    """With the exact score and t uniform the loss is ½ log of the ratio of 1 + s² μᵀΣ⁻¹μ at the ends."""
    process, batch = CLD(), 60_000
    model = GaussianMixtureDenoiser(process, (0.0,), 0.25, parameterization=parameterization, shape=(1, 8, 8))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, 8, 8, generator=generator, dtype=torch.float64) / 2
    labels = {"class": torch.zeros(batch, dtype=torch.long)}
    loss = HybridScoreMatching("likelihood").loss(model, model, x, labels, generator)
    times = torch.tensor([process.earliest_time, 1.0], dtype=torch.float64)
    mean, cov = process.moments(times)
    information = (1 + 0.25 * (mean * torch.linalg.solve(cov, mean)).sum(-1)).log() / 2
    span = 1 - process.earliest_time
    assert float(loss) * span == pytest.approx(float(information[0] - information[1]), rel=0.02)


def test_one_component_will_do():
    """There `hsm` is the plain loss of ε: with nothing integrated out hybrid and denoising are one."""
    process = ContinuousVP()
    data, times, noise = drawn(process, 0.7, 0.4)
    (z, target, w), (z2, target2, w2) = (o.targets(process, data, times, noise) for o in BOTH)
    torch.testing.assert_close((z, target, w), (z2, target2, w2))
    torch.testing.assert_close(z, process.perturb(data, times, noise[0]))


def test_times_stay_above_the_smallest():
    t = HybridScoreMatching(stratified=False).draw_times(CLD(), 10_000, torch.Generator().manual_seed(0))
    assert float(t.min()) >= CLD().earliest_time
    assert float(t.max()) <= 1


def test_what_it_refuses():
    with pytest.raises(UsageError, match="dsm: unknown weighting='vlb'; expected noise, score or likelihood"):
        DenoisingScoreMatching(weighting="vlb")
