"""Grids on a process: by noise level and as listed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.spacing import spaced_times

PROCESSES = ["vp", "vp:schedule=cosine", "vp-continuous", "vp-continuous:schedule=cosine"]
every_process = pytest.mark.parametrize("spec", PROCESSES)


@every_process
@pytest.mark.parametrize("grid", ["lambda", "sigma", "karras", "karras:rho=3"])
@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 200))
def test_grids_by_noise_level_fall_strictly_from_the_prior_to_zero(spec: str, grid: str, steps: int) -> None:
    process = trilemma.process(spec)
    times = spaced_times(process, steps, grid)
    assert len(times) == steps + 1
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()
    if steps > 1:
        assert times[-2] == pytest.approx(process.earliest_time)


@every_process
@pytest.mark.parametrize(("grid", "power"), [("sigma", 1.0), ("karras", 7.0), ("karras:rho=3", 3.0)])
def test_power_grids_are_even_in_the_root_of_the_noise_level(spec: str, grid: str, power: float) -> None:
    process = trilemma.process(spec)
    root = (-process.log_snr(spaced_times(process, 12, grid)[:-1]) / (2 * power)).exp()
    assert torch.allclose(root.diff(), root.diff().mean().expand(11), rtol=1e-5)


@every_process
def test_lambda_grids_are_even_in_lambda(spec: str) -> None:
    process = trilemma.process(spec)
    gaps = process.log_snr(spaced_times(process, 12, "lambda")[:-1]).diff()
    assert torch.allclose(gaps, gaps.mean().expand(11), rtol=1e-6)


def test_karras_levels_are_those_of_the_paper() -> None:
    """σ_i = (σ_max^{1/ρ} + i/(S−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (2206.00364, equation 5)."""
    process = trilemma.process("vp-continuous")
    found = (-process.log_snr(spaced_times(process, 18, "karras")[:-1]) / 2).exp()
    high, low = (
        float((-process.log_snr(torch.tensor(t).double()) / 2).exp()) for t in (1.0, process.earliest_time)
    )
    wanted = [(high ** (1 / 7) + i / 17 * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(18)]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-7)


def test_listed_noise_levels_are_interpolated_in_their_logarithm() -> None:
    process = trilemma.process("vp-continuous")
    grid = "sigmas:values=[14.6, 3.0, 0.5, 0.03]"
    sigmas = (-process.log_snr(spaced_times(process, 4, grid)[:-1]) / 2).exp()
    assert torch.allclose(sigmas, torch.tensor([14.6, 3.0, 0.5, 0.03], dtype=torch.float64), rtol=1e-6)
    sigmas = (-process.log_snr(spaced_times(process, 7, grid)[:-1]) / 2).exp()
    assert sigmas[1] == pytest.approx(math.sqrt(14.6 * 3.0), rel=1e-6)


def test_times_are_taken_as_listed() -> None:
    process = trilemma.process("vp")
    assert spaced_times(process, 3, (0.9, 0.5, 0.1)).tolist() == [0.9, 0.5, 0.1, 0.0]
    assert spaced_times(process, 3, torch.tensor([1.0, 0.5, 0.25])).tolist() == [1.0, 0.5, 0.25, 0.0]
    assert trilemma.sampler("ddim:grid=[1.0, 0.5]").times(process, 2).tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(UsageError, match="lists 3 times for 4 steps"):
        spaced_times(process, 4, (0.9, 0.5, 0.1))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("karas", "did you mean 'karras'"),
        ("karras:ro=7", "its options: rho"),
        ("karras:rho=-1", "not positive"),
        ("karras:rho=high", "wrong type"),
        ("lambda:rho=7", "its options: none"),
        ("sigmas", "needs values"),
        ("sigmas:values=[1, 2]", "needs values"),
        ((0.5, 0.6), "fall strictly"),
        ((1.1, 0.6), "fall strictly"),
        ((1.0, 0.0), "fall strictly"),
        ((), "fall strictly"),
    ],
)
def test_bad_grids_are_refused_in_one_line(grid: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        spaced_times(trilemma.process("vp"), 10, grid)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
