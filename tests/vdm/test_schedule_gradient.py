"""One backward pass: the bound's gradient for the ends of γ, its variance's for the interior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from support.gaussian_data import (
    HIGH,
    LOW,
    VARIANCE,
    Cubic,
    ExactNoise,
    closed_form,
    corners,
    with_interior,
)
from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.testing import GaussianDenoiser
from trilemma_plugins.vdm.gradient_scaling import GradientScaling
from trilemma_plugins.vdm.interior import Interior, Linear
from trilemma_plugins.vdm.objective import VariationalBound
from trilemma_plugins.vdm.process import VDM


def data(batch: int, seed: int, size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """x ~ N(0, s²), low-discrepancy times and noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 1, size, size)
    x = math.sqrt(VARIANCE) * torch.randn(shape, generator=generator, dtype=torch.float64)
    t = VariationalBound().draw_times(batch, generator)
    return x, t, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steps", [None, 7])
def test_one_backward_gives_both_gradients(steps: int | None) -> None:
    process = VDM("learned", width=6)
    denoiser, objective = ExactNoise(process), VariationalBound(steps=steps, scale=16 * math.log(2))
    x, t, noise = data(16, 0)
    if steps:
        t = (t * steps).floor().add(1) / steps
    plain = objective.diffusion(denoiser, denoiser, x, t, noise, {})
    interior = list(process.interior.parameters())
    ends = torch.autograd.grad(plain.mean(), process.ends, retain_graph=True)[0]
    variance = torch.autograd.grad(plain.square().mean(), interior)
    gate = GradientScaling()
    gated = objective.diffusion(denoiser, denoiser, x, t, noise, {}, gate)
    torch.testing.assert_close(gated, plain)
    gated.mean().backward()
    torch.testing.assert_close(process.ends.grad, ends, rtol=1e-10, atol=1e-10)
    for parameter, expected in zip(interior, variance, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("weighting", ["sigmoid", "uniform"])
def test_a_weighting_leaves_the_schedule_the_gradient_of_the_bound(weighting: str, steps: int | None) -> None:
    process = VDM("learned", width=6)
    network = ExactNoise(process)
    x, t, noise = data(16, 0)
    t = (t * steps).floor().add(1) / steps if steps else t
    found = []
    for objective in (
        VariationalBound(steps=steps),
        VariationalBound(steps=steps, weighting=weighting, bias=1.0, floor=0.2),
    ):
        process.zero_grad()
        objective.diffusion(network, network, x, t, noise, {}, GradientScaling()).mean().backward()
        found.append([parameter.grad.clone() for parameter in process.parameters()])
    for weighted, bound in zip(*found, strict=True):
        torch.testing.assert_close(weighted, bound, rtol=1e-9, atol=1e-12)


def test_the_ends_get_the_slope_of_the_closed_form() -> None:
    """∂L∞/∂γ₁ = ½ s²/(s² + e^{γ₁}) and ∂L∞/∂γ₀ = −½ s²/(s² + e^{γ₀})."""
    process = with_interior(Cubic())
    denoiser = ExactNoise(process)
    x, t, noise = corners((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    VariationalBound().diffusion(denoiser, denoiser, x, t, noise, {}).mean().backward()
    expected = [s * VARIANCE / (VARIANCE + math.exp(g)) / 2 for s, g in ((-1, LOW), (1, HIGH))]
    torch.testing.assert_close(
        process.ends.grad, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-5
    )


def drawn(interior: Interior, seed: int, low: float = LOW) -> Tensor:
    denoiser = ExactNoise(with_interior(interior, low))
    with torch.no_grad():
        return VariationalBound().diffusion(denoiser, denoiser, *data(4000, seed), {})


def test_endpoints_move_the_bound_and_the_interior_does_not() -> None:
    """Antithetic times: batches are independent, so the standard error is that of their means."""

    def estimate(interior: Interior, low: float = LOW) -> tuple[float, float]:
        means = torch.stack([drawn(interior, seed, low).mean() for seed in range(25)]) / 16
        return means.mean().item(), means.std().item() / 5

    (linear, wide), (cubic, wider), (moved, _) = (
        estimate(Linear()),
        estimate(Cubic()),
        estimate(Linear(), -9.0),
    )
    error = math.hypot(wide, wider)
    assert error < 0.02
    assert abs(linear - cubic) < 4 * error
    assert abs(linear - closed_form()) < 4 * wide
    assert closed_form() - closed_form(-9.0) > 2
    assert abs(moved - closed_form(-9.0)) < 4 * wide


def test_a_trained_interior_has_less_variance_and_the_same_mean() -> None:
    """At least a quarter less than linear γ, measured on fresh draws, with ends that are not trained."""
    process = VDM("learned", endpoints=False, width=48)
    denoiser, objective = ExactNoise(process), VariationalBound(scale=16 * math.log(2))
    optimizer = torch.optim.Adam(process.interior.parameters(), lr=0.03)
    for step in range(150):
        gate = GradientScaling()
        losses = objective.diffusion(denoiser, denoiser, *data(64, 1000 + step), {}, gate)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = objective.diffusion(denoiser, denoiser, *data(20_000, 1), {}) / 16
        linear = ExactNoise(with_interior(Linear()))
        before = objective.diffusion(linear, linear, *data(20_000, 1), {}) / 16
    assert float(after.var()) < 0.75 * float(before.var()), (float(after.var()), float(before.var()))
    assert abs(float(after.mean()) - closed_form()) < 4 * float(after.std()) / math.sqrt(len(after))


def test_the_whole_objective_trains_ends_and_interior() -> None:
    process = VDM("learned", width=6)
    denoiser = ExactNoise(process, (1, 4, 4))
    index = torch.randint(0, 256, (8, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    x = index.double() * 2 / 255 - 1
    loss = VariationalBound().loss(denoiser, denoiser, x, {}, torch.Generator().manual_seed(1))
    loss.backward()
    assert 0 < float(loss.detach()) < 50
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in process.parameters())


def test_a_scaling_without_factors_says_so() -> None:
    value = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"call set\(factors\)"):
        GradientScaling()(value).sum().backward()


def test_bad_options_and_other_processes_are_refused() -> None:
    bad = ("steps=0", "weighting=snr", "interior=mean", "scale=0", "levels=1", "floor=2", "drop=-1")
    for spec in (f"vlb:{option}" for option in bad):
        with pytest.raises(UsageError):
            lookup.objective(spec)
    model = GaussianDenoiser(lookup.process("vp-continuous"))
    with pytest.raises(UsageError, match="set \\[process\\]"):
        VariationalBound().loss(model, model, torch.zeros(2, 1, 1, 1), {}, torch.Generator())
