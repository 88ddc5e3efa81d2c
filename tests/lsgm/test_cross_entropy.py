"""The cross entropy against its closed form for normal codes."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.interfaces.process import Process
from trilemma_plugins.ddpm.geometric import GeometricVP
from trilemma_plugins.ddpm.process import ContinuousVP
from trilemma_plugins.lsgm.cross_entropy import cross_entropy, entropy, last_divergence
from trilemma_plugins.lsgm.importance_sampling import WEIGHTINGS, ImportanceSampling

LOG_2_PI_E = math.log(2 * math.pi * math.e)
each_process = pytest.mark.parametrize("process", [GeometricVP(), ContinuousVP()], ids=str)


@each_process
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_normal_codes_under_the_normal_prior(process: Process, weighting) -> None:
    """q = N(0, 1) and s = 0: the published cross entropy is ½ ln(2πe σ₁²), and with the last term ½ ln(2πe)."""
    times = ImportanceSampling(process)
    first, last = times.ends
    u = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    drawn = times.draw("ll", u)
    # E(ε − σ z_t)² = 1 − σ², for every t.
    error = drawn.likelihood * (1 - process.sigma(drawn.t).square())
    found = cross_entropy(error, first, 1)
    expected = LOG_2_PI_E / 2 + float(last.log()) / 2
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0, atol=1e-12)
    codes = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = (codes - codes.mean()) / codes.std()
    whole = expected + float(last_divergence(codes, last).mean())
    assert whole == pytest.approx(LOG_2_PI_E / 2, abs=1e-8)


@each_process
def test_a_matched_encoder_has_no_divergence(process: Process) -> None:
    first, _ = ImportanceSampling(process).ends
    assert entropy(torch.zeros(3, 2, 2), first).tolist() == pytest.approx([2 * LOG_2_PI_E] * 3)


def test_entropy_of_codes_that_the_first_noise_drowns() -> None:
    variance = torch.tensor(0.01, dtype=torch.float64)
    narrow, exact = entropy(torch.full((1, 1), -30.0), variance), (LOG_2_PI_E + math.log(0.01)) / 2
    assert narrow.item() == pytest.approx(exact, abs=1e-6)
