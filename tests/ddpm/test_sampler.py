"""The ancestral sampler against the posterior of the chain."""

from __future__ import annotations

import itertools
import math

import pytest

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import scalar
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM

PROCESS = DiscreteVP()


def numbers(sampler: DDPM, process: Process, steps: int) -> list[tuple[float, float, float]]:
    rows = sampler.plan(process, sampler.times(process, steps)).rows
    return [(scalar(row.A), scalar(row.B[0][1]), scalar(row.C)) for row in rows]


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_full_chain_is_equations_6_and_7_of_the_paper(variance: str) -> None:
    """μ̃ = √ᾱ_{k−1} β_k/(1−ᾱ_k) x₀ + √α_k (1−ᾱ_{k−1})/(1−ᾱ_k) x_k; β̃_k = (1−ᾱ_{k−1})/(1−ᾱ_k) β_k."""
    betas = PROCESS.betas.tolist()
    alpha_bar = [1.0]
    for beta in betas:
        alpha_bar.append(alpha_bar[-1] * (1 - beta))
    rows = numbers(DDPM(variance), PROCESS, 1000)
    assert len(rows) == 1000
    for k, (A, B, C) in zip(range(1000, 0, -1), rows, strict=True):
        beta, now, before = betas[k - 1], alpha_bar[k], alpha_bar[k - 1]
        assert pytest.approx(math.sqrt(1 - beta) * (1 - before) / (1 - now), rel=1e-9, abs=1e-12) == A
        assert pytest.approx(math.sqrt(before) * beta / (1 - now), rel=1e-9) == B
        expected = 0.0 if k == 1 else (1 - before) / (1 - now) * beta if variance == "small" else beta
        assert pytest.approx(expected, rel=1e-9, abs=1e-15) == C**2
    assert rows[-1] == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("process", [PROCESS, ContinuousVP(), ContinuousVP("cosine")], ids=str)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_strided_chain_is_the_posterior_of_its_own_transitions(process: Process, steps: int) -> None:
    """Combining q(z_s | x₀) with q(z_t | z_s) by Bayes' rule, in precisions."""
    times = DDPM().times(process, steps)
    for (t, s), (A, B, C) in zip(
        itertools.pairwise(times[:-1]), numbers(DDPM(), process, steps), strict=False
    ):
        psi, Q = (entry.item() for entry in process.transition(s, t))
        alpha_s, variance_s = process.alpha(s).item(), process.sigma(s).item() ** 2
        posterior = 1 / (1 / variance_s + psi**2 / Q)
        assert pytest.approx(posterior, rel=1e-8) == C**2
        assert pytest.approx(posterior * psi / Q, rel=1e-8) == A
        assert pytest.approx(posterior * alpha_s / variance_s, rel=1e-8) == B


@pytest.mark.parametrize("process", [PROCESS, ContinuousVP()], ids=str)
def test_the_small_variance_preserves_the_marginals_with_the_true_data(process: Process) -> None:
    times = DDPM().times(process, 25)
    alpha, variance = process.alpha(times), process.sigma(times).square()
    alpha[-1], variance[-1] = 1, 0
    for r, (A, B, C) in enumerate(numbers(DDPM(), process, 25)):
        assert A * alpha[r].item() + B == pytest.approx(alpha[r + 1].item(), abs=1e-12)
        assert A**2 * variance[r].item() + C**2 == pytest.approx(variance[r + 1].item(), abs=1e-12)


def test_the_large_variance_is_that_of_the_transition() -> None:
    times = DDPM().times(PROCESS, 25)
    rows = numbers(DDPM("large"), PROCESS, 25)
    Q = PROCESS.transition(times[1:], times[:-1])[1][..., 0, 0]
    assert [C**2 for _, _, C in rows[:-1]] == pytest.approx(Q[:-1].tolist(), rel=1e-12)
    assert rows[-1][2] == 0


def final_variance(sampler: DDPM, steps: int, data_variance: float) -> float:
    """Variance 1 at the prior pushed through the rows on the exact x̂₀ of N(0, data_variance)."""
    t = sampler.times(PROCESS, steps)[:-1]
    alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
    gains = (alpha * data_variance / (alpha.square() * data_variance + sigma.square())).tolist()
    v = 1.0
    for gain, (A, B, C) in zip(gains, numbers(sampler, PROCESS, steps), strict=True):
        v = (A + B * gain) ** 2 * v + C**2
    return v


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_full_chain_draws_the_data(variance: str) -> None:
    assert final_variance(DDPM(variance), 1000, 0.25) == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("sampler", [DDPM("small"), DDPM("large")], ids=str)
def test_samples_have_the_moments_that_the_rows_promise(sampler: DDPM) -> None:
    model = GaussianDenoiser(PROCESS, 0.5, 0.04, "v", (1, 16, 16))
    drawn = trilemma.sample(model, 32, sampler=sampler, steps=25).samples.double()
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(final_variance(sampler, 25, 0.04), rel=0.08)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"variance": "learned"}, "variance"), ({"grid": "karas"}, "grid"), ({"clip": -1.0}, "clip")],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        DDPM(**options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
