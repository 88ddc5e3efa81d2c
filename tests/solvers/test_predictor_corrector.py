"""Predictor–corrector: the ancestral step, Langevin's, and the law that the latter settles to."""

from __future__ import annotations

import math

import pytest

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.tableau import Tableau
from trilemma.testing.law import sample_law
from trilemma.testing.local import LOCAL, local_times
from trilemma.testing.orders import law_error
from trilemma_plugins.solvers.predictor_corrector import PredictorCorrector


@pytest.mark.parametrize("spec", ["vp", "edm", "flow", "sub-vp"])
def test_without_corrections_it_is_ddpm(spec: str) -> None:
    process = lookup.build("process", spec)[0]
    ddpm = lookup.build("sampler", "ddpm:grid=karras")[0]
    times = ddpm.times(process, 12)
    found = PredictorCorrector(corrections=0).plan(process, times)
    for a, b in zip(found.rows, ddpm.plan(process, times).rows, strict=True):
        assert a.t == b.t
        assert [a.A, a.B[0][1], a.C] == pytest.approx([b.A, b.B[0][1], b.C], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("process", LOCAL, ids=lambda process: type(process).__name__)
def test_a_correction_is_a_step_of_langevin(process) -> None:
    """z + ε ∇ log p + √(2ε) ξ with √ε = r √2 σ, before every step."""
    times, r = local_times(3), 0.2
    alpha, sigma = (level.tolist() for level in process.alpha_sigma(times))
    rows = PredictorCorrector(corrections=2, snr=r).plan(process, times).rows
    assert [row.t for row in rows] == [t for t in times[:-1].tolist() for _ in range(3)]
    for i in range(3):
        assert rows[3 * i] == rows[3 * i + 1]
        row, size = rows[3 * i], 2 * (r * sigma[i]) ** 2
        for z, x0 in ((0.3, -1.0), (2.0, 0.5)):
            score = (alpha[i] * x0 - z) / sigma[i] ** 2
            assert row.A * z + row.B[0][1] * x0 == pytest.approx(z + size * score, rel=1e-12)
        assert pytest.approx(math.sqrt(2 * size), rel=1e-12) == row.C


@pytest.mark.parametrize("r", [0.1, 0.3])
@pytest.mark.parametrize("process", LOCAL, ids=lambda process: type(process).__name__)
def test_corrections_settle_to_the_law_but_for_r_squared(process, r: float) -> None:
    """On N(m, s²) to mean α m and variance v/(1 − r² σ²/v), v = α² s² + σ²."""
    times, mean, variance = local_times(1), 0.4, 0.25
    plan = PredictorCorrector(corrections=2000, snr=r).plan(process, times)
    found = sample_law(Tableau(plan.rows[:-1], plan.parameterization), process, mean, variance)
    alpha, sigma = (float(level[0]) for level in process.alpha_sigma(times))
    marginal = alpha**2 * variance + sigma**2
    assert found[0] == pytest.approx(alpha * mean, rel=1e-9)
    assert found[1] == pytest.approx(marginal / (1 - r**2 * sigma**2 / marginal), rel=1e-9)


@pytest.mark.parametrize("process", LOCAL, ids=lambda process: type(process).__name__)
def test_corrections_take_away_errors_of_few_steps(process) -> None:
    errors = [law_error(PredictorCorrector(count, 0.16), process, 6) for count in (0, 4, 16)]
    assert errors[0] > 1.2 * errors[1] > 1.2**2 * errors[2], errors


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations(steps: int) -> None:
    process = lookup.build("process", "flow")[0]
    sampler = PredictorCorrector(corrections=3)
    rows = sampler.plan(process, sampler.times(process, steps)).rows
    assert len(rows) == sampler.nfe(steps) == 4 * steps
    assert (rows[-1].A, rows[-1].C) == (0.0, 0.0)


@pytest.mark.parametrize("options", [{"corrections": -1}, {"corrections": 0.5}, {"snr": 0.0}, {"snr": 1.0}])
def test_options_out_of_range(options) -> None:
    with pytest.raises(UsageError, match="predictor-corrector: ") as caught:
        PredictorCorrector(**options)
    assert "\n" not in str(caught.value)
