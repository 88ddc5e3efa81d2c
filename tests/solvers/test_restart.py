"""Restart: Heun's steps, the noise between its passes, and what a pass is for."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Tableau
from trilemma.numerics.conversion import convert
from trilemma.testing.interpreter import interpret
from trilemma.testing.local import LOCAL, local_times
from trilemma_plugins.solvers.heun import Heun
from trilemma_plugins.solvers.restart import Restart

PROCESSES = ("vp", "vp-continuous", "edm", "ve", "flow", "sub-vp")


def built(spec: str) -> Process:
    process: Process = lookup.build("process", spec)[0]
    return process


@pytest.mark.parametrize("spec", PROCESSES)
def test_without_restarts_it_is_heun(spec: str) -> None:
    process = built(spec)
    for steps in (1, 2, 9):
        times = Heun().times(process, steps)
        assert Restart(restarts=0).plan(process, times) == Heun().plan(process, times)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 11])
@pytest.mark.parametrize(
    "options", [{}, {"restarts": 3, "pass_steps": 2}, {"rho_min": 5.0, "rho_max": 500.0}]
)
@pytest.mark.parametrize("spec", PROCESSES)
def test_every_process_pays_the_same(spec: str, options: dict[str, float], steps: int) -> None:
    process, sampler = built(spec), Restart(**options)  # type: ignore[arg-type]
    for grid in ("karras", "trailing", "uniform"):
        rows = replace(sampler, grid=grid).plan(process, sampler.times(process, steps)).rows
        assert len(rows) == sampler.nfe(steps)
        assert sum(row.C != 0 for row in rows) == (sampler.restarts if steps > 1 else 0)
        assert rows[-1].C == 0


@pytest.mark.parametrize("spec", PROCESSES)
def test_noise_goes_up_to_where_the_pass_begins(spec: str) -> None:
    """From ρ_b, the level nearest to rho_min, to ρ_a = ρ_b · rho_max/rho_min; every pass ends at ρ_b again."""
    process, sampler = built(spec), Restart(restarts=3, rho_min=0.1, rho_max=0.5, pass_steps=4)
    times = sampler.times(process, 20)
    alpha, sigma = process.alpha_sigma(times[:-1])
    rho = (sigma / alpha).tolist()
    low = min(rho[1:], key=lambda level: abs(math.log(level / 0.1)))
    rows = sampler.plan(process, times).rows
    noisy = [r for r, row in enumerate(rows) if row.C]
    assert [b - a for a, b in pairwise(noisy)] == [8, 8]
    assert rows[noisy[-1] + 9].t == times[rho.index(low)] == rows[noisy[0]].t  # the ends of the passes
    for r in noisy:
        a, s = (
            float(level) for level in process.alpha_sigma(torch.tensor(rows[r + 1].t, dtype=torch.float64))
        )
        assert s / a == pytest.approx(5 * low, rel=1e-9)
        assert pytest.approx(a * math.sqrt((s / a) ** 2 - low**2), rel=1e-12) == rows[r].C


def test_a_pass_begins_no_higher_than_the_grid() -> None:
    process, sampler = LOCAL[2], Restart(rho_min=1.0, rho_max=100.0)
    times = local_times(8)
    assert max(row.t for row in sampler.plan(process, times).rows) == pytest.approx(
        float(times[0]), abs=1e-12
    )


def gain(tableau: Tableau, process: Process, variance: float) -> float:
    """How much of an offset of the first state is left in the last, where data are N(0, s²)."""
    t = torch.tensor([row.t for row in tableau.rows], dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    p, q = convert("x0", tableau.parameterization, alpha, sigma)
    slope = (p + q * alpha * variance / (alpha.square() * variance + sigma.square())).tolist()
    return interpret(tableau, lambda r, row, z: slope[r] * z, 1.0)[-1]


@pytest.mark.parametrize("process", LOCAL, ids=lambda process: type(process).__name__)
def test_every_restart_shrinks_an_error_by_the_same_factor(process: Process) -> None:
    """For N(0, s²) the flow from ρ_a to ρ_b multiplies an error of z̄ by √((s² + ρ_b²)/(s² + ρ_a²))."""
    times, variance = local_times(40), 0.3
    gains = [
        gain(
            Restart(restarts=k, rho_min=1.8, rho_max=2.7, pass_steps=60).plan(process, times),
            process,
            variance,
        )
        for k in range(4)
    ]
    alpha, sigma = process.alpha_sigma(times)
    low = min((sigma / alpha).tolist()[1:-1], key=lambda level: abs(math.log(level / 1.8)))
    factor = math.sqrt((variance + low**2) / (variance + (1.5 * low) ** 2))
    assert [b / a for a, b in pairwise(gains)] == pytest.approx([factor] * 3, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"restarts": -1},
        {"restarts": 1.5},
        {"rho_min": 0.0},
        {"rho_min": 0.5, "rho_max": 0.4},
        {"pass_steps": 0},
        {"s_noise": 0.0},
    ],
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="restart: ") as caught:
        Restart(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
