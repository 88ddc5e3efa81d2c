"""The variance-preserving processes against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.errors import UsageError
from trilemma_plugins.ddpm.geometric import GeometricVP
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP, VariancePreserving

PROCESSES = [
    DiscreteVP(),
    DiscreteVP(T=10),
    DiscreteVP("cosine"),
    DiscreteVP("cosine", T=7),
    ContinuousVP(),
    ContinuousVP("cosine"),
    GeometricVP(),
]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=str)


def table_times(T: int) -> Tensor:
    return torch.arange(1, T + 1, dtype=torch.float64) / T


def product_of_alphas(betas: list[float]) -> list[float]:
    """ᾱ_k = Π (1 − β_j) by plain multiplication."""
    products, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    return products


def test_linear_table_is_the_running_product() -> None:
    betas = [1e-4 + (0.02 - 1e-4) * k / 999 for k in range(1000)]
    alpha_bar = DiscreteVP().alpha(table_times(1000)).square()
    assert alpha_bar.tolist() == pytest.approx(product_of_alphas(betas), rel=1e-12)
    assert alpha_bar[0].item() == pytest.approx(1 - 1e-4, rel=1e-15)


def test_cosine_table_is_the_cosine_until_beta_is_clipped() -> None:
    T = 1000
    f = [math.cos((k / T + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(T + 1)]
    alpha_bar = DiscreteVP("cosine").alpha(table_times(T)).square()
    expected = [value / f[0] for value in f[1:]]
    assert alpha_bar[:-1].tolist() == pytest.approx(expected[:-1], rel=1e-10)
    assert alpha_bar[-1].item() == pytest.approx(expected[-2] * 0.001, rel=1e-10)


@pytest.mark.parametrize("T", [1, 10, 50, 999, 1000, 4000])
def test_table_points_are_exact_whatever_the_rounding_of_the_time(T: int) -> None:
    process = DiscreteVP("cosine", T=T)
    direct = torch.log1p(-process.betas).cumsum(0)
    assert torch.equal(process.log_alpha_bar(table_times(T)), direct)
    assert torch.equal(process.log_alpha_bar(table_times(T).float()), direct)


def test_scaled_linear_has_evenly_spaced_roots() -> None:
    """The table of latent diffusion, by its own scheduler in diffusers."""
    diffusers = pytest.importorskip("diffusers")
    process = DiscreteVP("scaled_linear", beta_min=0.00085, beta_max=0.012)
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(process.betas, scheduler.betas.double(), rtol=1e-5, atol=0)
    gaps = process.betas.sqrt().diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(999), rtol=1e-9, atol=0)


def test_between_table_points_log_alpha_bar_is_linear() -> None:
    process = DiscreteVP(T=10)
    left, right = process.log_alpha_bar(torch.tensor([0.3, 0.4], dtype=torch.float64)).tolist()
    between = process.log_alpha_bar(torch.tensor(0.325, dtype=torch.float64)).item()
    assert between == pytest.approx(0.75 * left + 0.25 * right, rel=1e-13)


@pytest.mark.parametrize("process", [p for p in PROCESSES if p.table or p == ContinuousVP()], ids=str)
def test_time_zero_is_the_data(process: VariancePreserving) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert process.alpha(zero).item() == 1
    assert process.sigma(zero).item() == 0


def test_continuous_linear_closed_form() -> None:
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    alpha_bar = ContinuousVP().alpha(t).square()
    assert alpha_bar.tolist() == pytest.approx(
        [math.exp(-0.5 * u * u * 19.9 - 0.1 * u) for u in t.tolist()], rel=1e-14
    )


def test_continuous_cosine_runs_from_20_to_minus_20_along_the_tangent() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert ContinuousVP("cosine").log_snr(t).tolist() == pytest.approx([20, 0, -20], abs=1e-9)
    b = math.atan(math.exp(-10))
    a = math.atan(math.exp(10)) - b
    quarter = ContinuousVP("cosine").log_snr(torch.tensor(0.25, dtype=torch.float64)).item()
    assert quarter == pytest.approx(-2 * math.log(math.tan(a / 4 + b)), abs=1e-12)


@every_process
@settings(deadline=None)
@given(t=st.floats(1e-3, 1))
def test_scales_lie_on_the_unit_circle_and_log_snr_inverts(process: VariancePreserving, t: float) -> None:
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = process.alpha(time), process.sigma(time)
    assert (alpha.square() + sigma.square()).item() == pytest.approx(1, abs=1e-14)
    assert process.log_snr(time).item() == pytest.approx(2 * math.log(alpha / sigma), abs=1e-9)
    assert process.time_of_log_snr(process.log_snr(time)).item() == pytest.approx(t, abs=1e-6)


@every_process
@settings(deadline=None)
@given(times=st.lists(st.floats(1e-3, 1), min_size=2, max_size=2, unique=True))
def test_transition_composes_to_the_marginal(process: VariancePreserving, times: list[float]) -> None:
    s, t = torch.tensor(sorted(times), dtype=torch.float64)
    psi, q = (entry.item() for entry in process.transition(s, t))
    assert psi * process.alpha(s).item() == pytest.approx(process.alpha(t).item(), rel=1e-9)
    assert psi**2 * process.sigma(s).item() ** 2 + q == pytest.approx(process.sigma(t).item() ** 2, rel=1e-9)


@every_process
def test_drift_and_diffusion_drive_the_moments(process: VariancePreserving) -> None:
    """d log α/dt = F and dσ²/dt = 2Fσ² + G², by central differences inside a table interval."""
    t, h = torch.tensor([0.2137, 0.5013, 0.8779], dtype=torch.float64), 1e-6
    rate = (process.alpha(t + h).log() - process.alpha(t - h).log()) / (2 * h)
    slope = (process.sigma(t + h).square() - process.sigma(t - h).square()) / (2 * h)
    drift, diffusion = process.drift(t)[..., 0, 0], process.diffusion(t)[..., 0, 0]
    assert torch.allclose(drift, rate, rtol=1e-5)
    assert torch.allclose(
        2 * drift * process.sigma(t).square() + diffusion.square(), slope, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: DiscreteVP("sigmoid"), "schedule"),
        (lambda: DiscreteVP(T=0), "T=0"),
        (lambda: DiscreteVP(beta_max=1.5), "beta_max"),
        (lambda: ContinuousVP("scaled"), "schedule"),
        (lambda: ContinuousVP(beta_min=-1.0), "beta_min"),
    ],
)
def test_bad_options_are_refused_in_one_line(make: object, word: str) -> None:
    with pytest.raises(UsageError, match=word) as error:
        make()  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_the_geometric_variance_is_the_published_one() -> None:
    """σ² = σ²_min (σ²_max/σ²_min)^t and g² = σ² ln(ratio)/(1 − σ²)."""
    process, t = GeometricVP(), torch.linspace(0, 1, 101, dtype=torch.float64)
    ratio = 0.999 / 3e-5
    variance = 3e-5 * ratio**t
    torch.testing.assert_close(process.sigma(t).square(), variance, rtol=1e-12, atol=0)
    torch.testing.assert_close(process.alpha(t).square(), 1 - variance, rtol=1e-11, atol=0)
    g2 = variance * math.log(ratio) / (1 - variance)
    torch.testing.assert_close(process.diffusion(t)[:, 0, 0].square(), g2, rtol=1e-11, atol=0)
    torch.testing.assert_close(process.time_of_log_snr(process.log_snr(t)), t, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.9), (0.5, 0.5), (0.1, 1.0)])
def test_geometric_variances_that_do_not_rise_are_refused(low: float, high: float) -> None:
    with pytest.raises(UsageError, match="variance_min < variance_max"):
        GeometricVP(low, high)
