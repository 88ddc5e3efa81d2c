"""DDIM against the formulas and the numbers of exact Gaussian data."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import trilemma
from trilemma.engine.noise import InjectedNoise
from trilemma.engine.program import lower
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Row, scalar
from trilemma.numerics import grids
from trilemma.ops import layout
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM

PROCESS = DiscreteVP()
STEPS = (10, 20, 50, 100, 1000)
# Final variances for data N(0, .25) and the exact ε̂, from variance 1 at the largest τ of the uniform grid.
VARIANCES = {
    0.0: (0.13997, 0.18813, 0.22320, 0.23618, 0.24850),
    1.0: (0.11106, 0.15324, 0.19725, 0.21926, 0.24613),
}
NUMBERS = [(eta, steps, v) for eta in VARIANCES for steps, v in zip(STEPS, VARIANCES[eta], strict=True)]


def gains(eta: float, steps: int) -> list[tuple[float, float]]:
    """Per row (gain, C): z' = gain·z + C·ξ on the exact ε̂ of N(0, .25), from the lowered table."""
    sampler = DDIM(eta=eta, grid="uniform")
    program = lower(sampler.plan(PROCESS, sampler.times(PROCESS, steps)), "eps", PROCESS)
    t = torch.tensor(program.times, dtype=torch.float64)
    alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
    eps = sigma / (alpha.square() * 0.25 + sigma.square())
    table = program.table
    f = table[:, layout.R] + table[:, layout.S] * (table[:, layout.P] + table[:, layout.Q] * eps)
    gain = table[:, layout.A] + table[:, layout.B][:, 0] * f
    return list(zip(gain.tolist(), table[:, layout.C].tolist(), strict=True))


@pytest.mark.parametrize(("eta", "steps", "variance"), NUMBERS)
def test_final_variance_through_the_table(eta: float, steps: int, variance: float) -> None:
    v = 1.0
    for gain, c in gains(eta, steps):
        v = gain**2 * v + c**2
    assert round(v, 5) == variance


@pytest.mark.parametrize(("eta", "steps", "variance"), NUMBERS)
def test_final_variance_through_the_engine(eta: float, steps: int, variance: float) -> None:
    """The engine is linear here: the variance is the sum of its squared responses to the start and to each noise."""
    model = GaussianDenoiser(PROCESS, 0.0, 0.25)
    responses = steps + 1 if eta else 1
    latent = torch.zeros(responses, 1, 1, 1, dtype=torch.float64)
    latent[0] = 1
    noise = torch.zeros(steps, responses, 1, 1, 1, dtype=torch.float64)
    noise[torch.arange(responses - 1), torch.arange(1, responses)] = 1
    drawn = trilemma.sample(
        model,
        sampler=DDIM(eta=eta, grid="uniform"),
        steps=steps,
        latent=latent,
        noise=InjectedNoise(steps=noise),
        batch_size=responses,
        dtype=torch.float64,
    )
    assert drawn.provenance["nfe"] == steps
    assert round(drawn.samples.square().sum().item(), 5) == variance


def reference_step(x: float, eps: float, a: float, a_next: float, eta: float, noise: float) -> float:
    """Equation (12) of 2010.02502, as it is printed."""
    x0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
    c1 = eta * math.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
    c2 = math.sqrt(max(1 - a_next - c1**2, 0.0))
    return math.sqrt(a_next) * x0 + c2 * eps + c1 * noise


@settings(max_examples=60, deadline=None)
@given(
    eta=st.floats(0, 1),
    T=st.integers(2, 60),
    fraction=st.floats(0, 1),
    grid=st.sampled_from(grids.GRIDS),
    schedule=st.sampled_from(["linear", "cosine"]),
)
def test_every_row_is_the_papers_step_to_the_next_entry_of_the_grid(
    eta: float, T: int, fraction: float, grid: str, schedule: str
) -> None:
    process = DiscreteVP(schedule, T=T)
    steps = 1 + round(fraction * (T - 1))
    alpha_bar = torch.cumprod(1 - process.betas, 0).tolist()
    indices = grids.table_indices(T, steps, grid)[::-1]
    rows = DDIM(eta=eta, grid=grid).plan(process, grids.times(T, steps, grid)).rows
    assert len(rows) == steps
    x, eps, noise = 0.8, -0.6, 0.3
    for row, index, following in zip(rows, indices, [*indices[1:], None], strict=True):
        a, a_next = alpha_bar[index], 1.0 if following is None else alpha_bar[following]
        x0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        ours = scalar(row.A) * x + scalar(row.B[0][1]) * x0 + scalar(row.C) * noise
        assert row.t == (index + 1) / T
        assert ours == pytest.approx(reference_step(x, eps, a, a_next, eta, noise), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("process", [PROCESS, ContinuousVP(), ContinuousVP("cosine")], ids=str)
@pytest.mark.parametrize("grid", grids.GRIDS)
def test_the_last_row_returns_the_predicted_data(process: Process, grid: str) -> None:
    sampler = DDIM(eta=1.0, grid=grid)
    row = sampler.plan(process, sampler.times(process, 5)).rows[-1]
    assert row == Row(row.t, 0.0, ((0, 1.0),), 0.0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("process", [PROCESS, ContinuousVP(), ContinuousVP("cosine")], ids=str)
def test_marginals_are_preserved_for_any_eta_with_the_true_data(eta: float, process: Process) -> None:
    """From q(z_t | x₀) each row leads to q(z_s | x₀): mean A α_t + B = α_s, variance A² σ_t² + C² = σ_s²."""
    sampler = DDIM(eta=eta)
    times = sampler.times(process, 37)
    alpha, variance = process.alpha(times), process.sigma(times).square()
    alpha[-1], variance[-1] = 1, 0
    for r, row in enumerate(sampler.plan(process, times).rows):
        A, B, C = scalar(row.A), scalar(row.B[0][1]), scalar(row.C)
        assert A * alpha[r].item() + B == pytest.approx(alpha[r + 1].item(), abs=1e-12)
        assert A**2 * variance[r].item() + C**2 == pytest.approx(variance[r + 1].item(), abs=1e-12)


@pytest.mark.parametrize("process", [PROCESS, ContinuousVP()], ids=str)
@pytest.mark.parametrize("grid", ["trailing", "uniform"])
def test_full_stochasticity_is_ddpm_with_the_small_variance(process: Process, grid: str) -> None:
    times = DDIM(grid=grid).times(process, 30)
    ours = DDIM(eta=1.0, grid=grid).plan(process, times).rows
    theirs = DDPM("small", grid=grid).plan(process, times).rows
    for a, b in zip(ours, theirs, strict=True):
        assert (a.t, a.base, a.B[0][0]) == (b.t, b.base, b.B[0][0])
        assert scalar(a.A) == pytest.approx(scalar(b.A), rel=1e-7, abs=1e-12)
        assert scalar(a.B[0][1]) == pytest.approx(scalar(b.B[0][1]), rel=1e-7)
        assert scalar(a.C) == pytest.approx(scalar(b.C), rel=1e-12)


@pytest.mark.parametrize("parameterization", ["x0", "eps", "v", "score"])
def test_the_flow_keeps_the_standardised_state(parameterization: str) -> None:
    """(z − α m)/√(α² s² + σ²) is constant along the exact solution, and along many steps but for first order."""
    m, s2 = 0.4, 0.25
    model = GaussianDenoiser(PROCESS, m, s2, parameterization)
    kept: list[Tensor] = []

    def standardise(z: Tensor, t: float) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = PROCESS.alpha(time), PROCESS.sigma(time)
        return (z - alpha * m) / (alpha.square() * s2 + sigma.square()).sqrt()

    latent = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    trilemma.sample(
        model,
        latent=latent,
        sampler=DDIM(),
        steps=250,
        callback=lambda step, steps, t, state: kept.append(standardise(state, t)),
        dtype=torch.float64,
    )
    drift = (torch.stack(kept) - standardise(latent, 1.0)).abs().max()
    assert 1e-6 < drift < 0.05


def test_the_order_is_one() -> None:
    """Twice the steps, half the error, against the closed form; in the time that makes the steps even."""
    process = ContinuousVP()
    model = GaussianDenoiser(process, 0.4, 0.25)
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = process.alpha(one), process.sigma(one)
    latent = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    exact = 0.4 + 0.5 * (latent - alpha * 0.4) / (alpha.square() * 0.25 + sigma.square()).sqrt()
    errors = [
        (
            trilemma.sample(model, latent=latent, sampler=DDIM(), steps=steps, dtype=torch.float64).samples
            - exact
        )
        .abs()
        .max()
        .item()
        for steps in (100, 200, 400)
    ]
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert orders == pytest.approx([DDIM().order] * 2, abs=0.05)


def test_what_is_declared() -> None:
    assert DDIM().deterministic
    assert not DDIM(eta=0.1).deterministic
    assert DDIM().nfe(17) == 17


def test_a_clip_keeps_eps_consistent_with_x0() -> None:
    """With x̂₀ clipped to c, z_s = α_s c + σ_s (z_t − α_t c)/σ_t."""
    process = DiscreteVP(T=10)
    model = GaussianDenoiser(process, 5.0, 0.01)  # x̂₀ is about 5 everywhere
    states: list[float] = []
    latent = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
    drawn = trilemma.sample(
        model,
        latent=latent,
        sampler=DDIM(clip=1.0),
        steps=10,
        callback=lambda step, steps, t, state: states.append(state.item()),
        dtype=torch.float64,
    ).samples
    times = grids.times(10, 10)
    alpha, sigma = process.alpha(times).tolist(), process.sigma(times).tolist()
    z = 0.7
    for r, state in enumerate(states):
        z = alpha[r + 1] * 1.0 + sigma[r + 1] * (z - alpha[r] * 1.0) / sigma[r]
        assert state == pytest.approx(z, rel=1e-10)
    assert drawn.item() == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [({"eta": -0.1}, "eta"), ({"eta": 1.5}, "eta"), ({"grid": "karas"}, "grid"), ({"clip": 0.0}, "clip")],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        DDIM(**options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
