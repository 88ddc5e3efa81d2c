"""SA-Solver: the methods it contains, its noise, and the order of its corrector."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import zip_longest

import pytest

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.tableau import Tableau
from trilemma.testing.interpreter import interpret
from trilemma.testing.local import LOCAL, local_times
from trilemma.testing.orders import flow_error
from trilemma.testing.scalar import MIXTURE
from trilemma_plugins.solvers.sa_solver import SASolver


def planned(spec: str, process: str, steps: int = 12) -> Tableau:
    built = lookup.build("process", process)[0]
    sampler = lookup.build("sampler", spec)[0]
    return sampler.plan(built, replace(sampler, grid="karras").times(built, steps))


def assert_same(found: Tableau, expected: Tableau) -> None:
    assert found.parameterization == expected.parameterization
    for a, b in zip(found.rows, expected.rows, strict=True):
        assert (a.t, a.base) == (b.t, b.base)
        assert pytest.approx((b.A, b.C), rel=1e-12, abs=1e-14) == (a.A, a.C)
        for (_, x), (_, y) in zip_longest(a.B, b.B, fillvalue=(0, 0.0)):
            assert x == pytest.approx(y, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("process", ["vp", "vp-continuous", "edm", "flow"])
@pytest.mark.parametrize(
    ("spec", "same_as"),
    [
        ("predictor=1,corrector=0,tau=1.0", "ddim:eta=1"),
        ("predictor=1,corrector=0,tau=0.0", "ddim"),
        ("predictor=2,corrector=0,tau=0.0", "dpmpp-2m:solver=heun"),
        ("predictor=2,corrector=0,tau=0.0", "deis:points=2,prediction=x0"),
        ("predictor=3,corrector=0,tau=0.0", "dpmpp-3m"),
        ("predictor=3,corrector=0,tau=1.0", "dpmpp-3m-sde"),
        ("predictor=2,corrector=0,tau=0.7", f"dpmpp-2m:solver=heun,eta={0.7**2}"),
        ("predictor=3,corrector=0,rho_min=1e6,rho_max=2e6", "dpmpp-3m"),
    ],
)
def test_contains(spec: str, same_as: str, process: str) -> None:
    assert_same(planned(f"sa-solver:{spec}", process), planned(same_as, process))


@pytest.mark.parametrize("process", ["vp", "edm"])
def test_two_step_exponential_adams(process: str) -> None:
    """z_s = (σ_s/σ_t) z_t + α_s [(1 − e^(−h)) x̂₀ + (h − 1 + e^(−h))/h₁ (x̂₀ − x̂₀₋₁)]."""
    built = lookup.build("process", process)[0]
    sampler = SASolver(predictor=2, corrector=0, tau=0.0, grid="karras")
    times = sampler.times(built, 9)[:-1]
    alpha, sigma = built.alpha_sigma(times)
    lam = (alpha / sigma).log().tolist()
    rows = sampler.plan(built, times).rows
    for i in range(1, len(rows)):
        h, before = lam[i + 1] - lam[i], lam[i] - lam[i - 1]
        slope = (h + math.expm1(-h)) / before
        expected = [float(alpha[i + 1]) * w for w in (-math.expm1(-h) + slope, -slope)]
        assert [c for _, c in rows[i].B] == pytest.approx(expected, rel=1e-12)
        assert pytest.approx(float(sigma[i + 1] / sigma[i]), rel=1e-12) == rows[i].A


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("points", [(2, 2), (2, 3), (3, 2), (3, 3)])
def test_a_line_is_integrated_exactly(points: tuple[int, int], tau: float) -> None:
    """Where x̂₀ is a + b λ, so is the first step, by its corrector, though its predictor takes x̂₀ as constant:

    z_s = (σ_s/σ_t) e^(−τ²h) z_t + σ_s e^(−τ²λ_s) [e^(cλ) (a + b (λ − 1/c))] from λ_t to λ_s,   c = 1 + τ²
    """
    process, times = LOCAL[0], local_times(6)
    alpha, sigma = process.alpha_sigma(times)
    lam = (alpha / sigma).log().tolist()
    a, b, c = 0.3, 0.8, 1 + tau**2
    plan = SASolver(*points, tau=tau).plan(process, times)
    z = interpret(plan, lambda r, row, z: a + b * lam[r], 0.9)[-1]
    whole = [math.exp(c * u) * (a + b * (u - 1 / c)) for u in (lam[0], lam[-1])]
    expected = float(sigma[-1] / sigma[0]) * math.exp(-(tau**2) * (lam[-1] - lam[0])) * 0.9
    expected += float(sigma[-1]) * math.exp(-(tau**2) * lam[-1]) * (whole[1] - whole[0])
    assert z == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [0.3, 1.0, 1.5])
def test_noise_is_the_exact_integral(tau: float) -> None:
    """The variance of ∫ √2 τ e^(−τ²(λ_s − λ)) dW over a step, times σ_s²: the same for any number of points."""
    process, times = LOCAL[0], local_times(5)
    alpha, sigma = process.alpha_sigma(times)
    lam = (alpha / sigma).log().tolist()
    for i, row in enumerate(SASolver(tau=tau).plan(process, times).rows):
        variance = float(sigma[i + 1]) ** 2 * (1 - math.exp(-2 * tau**2 * (lam[i + 1] - lam[i])))
        assert pytest.approx(math.sqrt(variance), rel=1e-12) == row.C


def test_noise_between_two_levels_only() -> None:
    process, times = LOCAL[2], local_times(9)
    rho = process.alpha_sigma(times)[1].tolist()
    rows = SASolver(rho_min=2.0, rho_max=3.5).plan(process, times).rows
    noisy = [row.C != 0 for row in rows]
    assert noisy == [2.0 <= level <= 3.5 for level in rho[:-1]]
    assert 0 < sum(noisy) < len(rows)


@pytest.mark.parametrize(
    ("predictor", "corrector", "order"), [(1, 1, 1), (1, 2, 2), (1, 3, 2), (2, 2, 2), (2, 3, 3), (3, 3, 3)]
)
def test_order_of_the_pair(predictor: int, corrector: int, order: int) -> None:
    """It is what is declared, and not more."""
    sampler = SASolver(predictor, corrector, tau=0.0)
    assert sampler.order == order
    errors = [flow_error(sampler, LOCAL[0], MIXTURE, steps) for steps in (96, 384)]
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(
    "options",
    [
        {"predictor": 0},
        {"predictor": 4},
        {"corrector": -1},
        {"corrector": 4},
        {"slope": "bh2"},
        {"tau": -0.1},
        {"tau": math.nan},
        {"rho_min": 2.0, "rho_max": 1.0},
    ],
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="sa-solver: ") as caught:
        SASolver(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
