"""PNDM's warm-up of Runge–Kutta: its order and what it costs."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.testing.law import sample_law
from trilemma.testing.local import ExplodingProcess
from trilemma_plugins.solvers.pndm import PNDM


def error(sampler: PNDM, steps: int) -> float:
    """Of the standard deviation of samples of N(0, s²)."""
    process, times = ExplodingProcess(), torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64)
    found = sample_law(sampler.plan(process, times), process, 0.0, 0.25)[1]
    return abs(math.sqrt(found) - math.sqrt(0.25 + float(process.sigma(times[-1])) ** 2))


def test_runge_kutta_keeps_the_order_of_four_points() -> None:
    """Where steps are even in ρ the weights of all methods fit."""
    order = math.log(error(PNDM("prk"), 64) / error(PNDM("prk"), 256), 4)
    assert order == pytest.approx(4, abs=0.25)


@pytest.mark.parametrize(("steps", "evaluations"), [(1, 1), (2, 5), (3, 9), (4, 13), (10, 19)])
def test_evaluations_of_the_runge_kutta_warm_up(steps, evaluations) -> None:
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    assert PNDM("prk").nfe(steps) == evaluations
    assert len(PNDM("prk").plan(ExplodingProcess(), times).rows) == evaluations
