"""The solvers: their order, their law, and what they do at the ends of a grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma import lookup
from trilemma.engine.program import lower
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.ops import layout
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.interpreter import interpret
from trilemma.testing.law import sample_law

integrate = pytest.importorskip("scipy.integrate")

DETERMINISTIC = (
    "deis:points=1",
    "deis:points=2",
    "deis:points=2,variable=rho",
    "deis:points=2,variable=t",
    "deis:points=3",
    "deis:points=4,variable=t",
    "deis:points=4,variable=rho",
    "deis:points=3,prediction=x0",
    "dpm:order=1",
    "dpm:order=2",
    "dpm:order=2,r1=0.3",
    "dpm:order=3",
    "dpm:order=3,r1=0.2",
    "dpmpp-2m",
    "dpmpp-2m:solver=heun",
    "dpmpp-2s",
    "euler",
    "heun",
    "lms",
    "pndm",
    "pndm:warmup=prk",
    "sa-solver:tau=0.0,predictor=2",
    "sa-solver:tau=0.0,predictor=1,corrector=1",
    "sa-solver:tau=0.0,predictor=2,corrector=2,slope=half",
    "sa-solver:tau=0.0,predictor=2,corrector=0",
    "dpmpp-3m",
    "dpmpp-3m:curvature=0.5",
    "unipc:p=1,variant=bh1",
    "unipc:p=1,variant=bh2",
    "unipc:p=2,variant=bh1",
    "unipc:p=2,variant=bh2",
    "unipc:p=3",
)
STOCHASTIC = (
    "dpmpp-2m:eta=0.5",
    "dpmpp-2m-sde",
    "dpmpp-2m-sde:solver=heun",
    "dpmpp-2s-ancestral",
    "dpmpp-3m-sde",
    "euler:s_churn=8",
    "euler-ancestral",
    "euler-ancestral:eta=1.4",
    "heun:s_churn=8",
    "sa-solver",
    "sa-solver:predictor=1,corrector=0",
    "sa-solver:tau=0.6,rho_min=0.8,rho_max=3.0",
    "restart",
    "restart:rho_min=1.0,rho_max=2.0,restarts=3",
    "restart:pass_steps=8",
    "predictor-corrector:corrections=0",
)


class Exploding(Process):
    """α = 1, σ = 5t."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return torch.ones_like(t)[..., None], (5 * t).square()[..., None, None]


class Straight(Process):
    """α = 1 − t, σ = t: no signal at t = 1."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return (1 - t)[..., None], t.square()[..., None, None]


LOCAL = (AngleProcess(), Exploding(), Straight())
EVERYWHERE = [*LOCAL, *(lookup.build("process", spec)[0] for spec in ("vp", "vp-continuous"))]


def named(spec: str) -> Sampler:
    sampler: Sampler = lookup.build("sampler", spec)[0]
    return sampler


MEANS, SPREADS, WEIGHTS = (-1.0, 0.2, 1.1), (0.2, 0.35, 0.25), (0.3, 0.3, 0.4)


def mixture_x0(z: float, alpha: float, sigma: float) -> float:
    """E[x₀ | z] of a mixture of three Gaussians."""
    variances = [alpha**2 * s * s + sigma**2 for s in SPREADS]
    logs = [
        math.log(w / math.sqrt(v)) - (z - alpha * m) ** 2 / (2 * v)
        for w, v, m in zip(WEIGHTS, variances, MEANS, strict=True)
    ]
    mass = [math.exp(entry - max(logs)) for entry in logs]
    posterior = [
        m + alpha * s * s / v * (z - alpha * m) for m, s, v in zip(MEANS, SPREADS, variances, strict=True)
    ]
    return sum(p * q for p, q in zip(mass, posterior, strict=True)) / sum(mass)


def flow_of_mixture(process: Process, z: float, times: tuple[float, float]) -> float:
    """The end of the probability-flow equation, d(z/α)/dρ = ε̂ in ρ = σ/α, from z."""
    (a, b), (s, e) = (entry.tolist() for entry in process.alpha_sigma(torch.tensor(times).double()))

    def slope(rho: float, y: np.ndarray) -> list[float]:
        return [(float(y[0]) - mixture_x0(float(y[0]), 1.0, rho)) / rho]

    solved = integrate.solve_ivp(slope, (s / a, e / b), [z / a], "DOP853", rtol=1e-12, atol=1e-13)
    return b * float(solved.y[0, -1])


def run_on_mixture(tableau: Tableau, process: Process, z: float) -> float:
    alpha, sigma = (
        level.tolist() for level in process.alpha_sigma(torch.tensor([r.t for r in tableau.rows]).double())
    )

    def predict(r: int, row: Row, z: float) -> float:
        x0 = mixture_x0(z, alpha[r], sigma[r])
        return x0 if tableau.parameterization == "x0" else (z - alpha[r] * x0) / sigma[r]

    return interpret(tableau, predict, z)[-1]


@pytest.mark.parametrize("spec", DETERMINISTIC)
def test_order_on_a_mixture(spec: str) -> None:
    """The slope of the error over grids that end above 0, from several starts, is what the sampler declares."""
    process, sampler = AngleProcess(), named(spec)
    starts = (-0.9, 0.4, 1.3)
    truth = [flow_of_mixture(process, z, (0.9, 0.3)) for z in starts]
    counts = (32, 128)
    errors = []
    for steps in counts:
        tableau = sampler.plan(process, torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64))
        found = [run_on_mixture(tableau, process, z) for z in starts]
        errors.append(max(abs(x - y) for x, y in zip(found, truth, strict=True)))
    slope = math.log(errors[0] / errors[1], counts[1] / counts[0])
    assert slope > sampler.order - 0.3, (slope, errors)


def law_error(sampler: Sampler, process: Process, steps: int) -> float:
    """Over several data, as the error at one may change its sign."""
    times = torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64)
    tableau = sampler.plan(process, times)
    alpha, sigma = (float(level[-1]) for level in process.alpha_sigma(times))
    errors = []
    for mean, variance in ((0.4, 0.05), (0.4, 0.25), (1.0, 1.5)):
        found = sample_law(tableau, process, mean, variance)
        errors += [found[0] - mean * alpha, math.sqrt(found[1]) - math.sqrt(alpha**2 * variance + sigma**2)]
    return max(map(abs, errors))


@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("spec", [*DETERMINISTIC, *STOCHASTIC])
def test_order_on_a_gaussian(spec: str, process: Process) -> None:
    """The law of N(m, s²) is reached at the declared order, on any process."""
    sampler = named(spec)
    errors = [law_error(sampler, process, steps) for steps in (48, 192)]
    assert errors[1] < 0.03
    assert math.log(errors[0] / errors[1], 4) > sampler.order - 0.35, errors


@settings(max_examples=20, deadline=None)
@given(
    spec=st.sampled_from([*DETERMINISTIC, *STOCHASTIC]),
    process=st.sampled_from(EVERYWHERE),
    times=st.lists(st.integers(1, 1000), min_size=2, max_size=13, unique=True),
    to_data=st.booleans(),
)
def test_any_grid(spec: str, process: Process, times: list[int], to_data: bool) -> None:
    """Coefficients are finite on any falling times, and data that are one point keep their law exactly."""
    falling = sorted((time / 1000 for time in times), reverse=True)
    grid = torch.tensor([*falling[:-1], 0.0] if to_data else falling, dtype=torch.float64)
    sampler = named(spec)
    assume(sampler.from_pure_noise or float(process.alpha(grid[0])) > 0)
    tableau = sampler.plan(process, grid)
    numbers = [(row.A, row.C, *(c for _, c in row.B)) for row in tableau.rows]
    assert all(math.isfinite(entry) for entry in itertools.chain(*numbers))  # type: ignore[arg-type]
    table = lower(tableau, "flow", process).table
    table[:, layout.CLIP] = 0
    assert bool(table.isfinite().all())
    alpha, sigma = (float(level[-1]) for level in process.alpha_sigma(grid))
    mean, variance = sample_law(tableau, process, 0.7, 0.0)
    size = max(abs(float(c)) for row in tableau.rows for _, c in row.B)  # type: ignore[arg-type]
    assert mean == pytest.approx(0.7 * alpha, abs=1e-9 * (1 + size))
    assert math.sqrt(variance) == pytest.approx(sigma, abs=1e-7 * (1 + size))


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("spec", [*DETERMINISTIC, *STOCHASTIC])
def test_evaluations(spec: str, steps: int) -> None:
    """A plan has the rows that `nfe` declares, from α = 0 too."""
    sampler = named(spec)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for process in LOCAL if sampler.from_pure_noise else LOCAL[:2]:
        assert len(sampler.plan(process, times).rows) == sampler.nfe(steps)


@pytest.mark.parametrize("process", EVERYWHERE, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    ("spec", "ddim"),
    [
        ("euler", "ddim"),
        ("euler-ancestral:eta=0.0", "ddim"),
        ("euler-ancestral:eta=0.7", "ddim:eta=0.7"),
        ("euler-ancestral", "ddim:eta=1.0"),
    ],
)
def test_euler_is_ddim(spec: str, ddim: str, process: Process) -> None:
    times = torch.tensor([1.0, 0.7, 0.55, 0.2, 0.05, 0.0], dtype=torch.float64)
    rows, known = (
        [(row.t, row.A, row.B[0][1], row.C) for row in named(entry).plan(process, times).rows]
        for entry in (spec, ddim)
    )
    assert torch.allclose(torch.tensor(rows).double(), torch.tensor(known).double(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "spec",
    [
        "euler:s_churn=-1.0",
        "euler:s_tmin=2.0,s_tmax=1.0",
        "euler-ancestral:eta=-1.0",
        "heun:s_noise=nan",
        "deis:points=0",
        "deis:points=5",
        "deis:variable=sigma",
        "deis:variable=t,prediction=x0",
        "deis:prediction=v",
        "dpm:order=4",
        "dpm:r1=1.0",
        "dpm:order=3,r1=0.7",
        "dpmpp-2m:eta=-1.0",
        "dpmpp-2m:eta=nan",
        "dpmpp-2m:solver=euler",
        "dpmpp-2s:eta=2.0",
        "dpmpp-3m:curvature=2.0",
        "pndm:warmup=plms",
        "unipc:p=0",
        "unipc:p=7",
        "unipc:variant=bh3",
    ],
)
def test_options_out_of_range(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        named(spec)
    assert "\n" not in str(caught.value)
