"""The Fréchet distance against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.evaluate import Observation
from trilemma_plugins.metrics.frechet import (
    FrechetDistance,
    GaussianFit,
    frechet_distance,
    positive_square_root,
)

seeds = st.integers(0, 2**31)
dimensions = st.integers(1, 12)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(seed: int, dimension: int) -> Tensor:
    factor = normal(seed, dimension, dimension + 3)
    return factor @ factor.T / (dimension + 3)


def rotation(seed: int, dimension: int) -> Tensor:
    return torch.linalg.qr(normal(seed, dimension, dimension)).Q


def fit(*batches: Tensor) -> GaussianFit:
    gaussian = GaussianFit()
    for batch in batches:
        gaussian.update(Observation(batch))
    return gaussian


@settings(deadline=None, max_examples=25)
@given(seeds, dimensions)
def test_a_translation_by_c_costs_its_squared_length(seed: int, dimension: int) -> None:
    mean, shift, S = normal(seed, dimension), normal(seed + 1, dimension), covariance(seed + 2, dimension)
    expected = shift.square().sum().item()
    assert frechet_distance(mean, S, mean + shift, S) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(seeds, dimensions, st.floats(0.0, 5.0))
def test_scaling_by_a_costs_its_squared_distance_from_one_times_the_trace(
    seed: int, dimension: int, a: float
) -> None:
    zero, S = torch.zeros(dimension, dtype=torch.float64), covariance(seed, dimension)
    expected = (a - 1) ** 2 * S.trace().item()
    assert frechet_distance(zero, S, zero, a * a * S) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@settings(deadline=None, max_examples=25)
@given(seeds, dimensions)
def test_commuting_covariances_cost_the_squared_differences_of_their_deviations(
    seed: int, dimension: int
) -> None:
    zero, Q = torch.zeros(dimension, dtype=torch.float64), rotation(seed, dimension)
    a, b = normal(seed + 1, dimension).abs(), normal(seed + 2, dimension).abs()
    S1, S2 = Q @ torch.diag(a.square()) @ Q.T, Q @ torch.diag(b.square()) @ Q.T
    expected = (a - b).square().sum().item()
    assert frechet_distance(zero, S1, zero, S2) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@settings(deadline=None, max_examples=25)
@given(seeds, dimensions)
def test_it_is_zero_to_itself_symmetric_and_invariant_under_isometries(seed: int, dimension: int) -> None:
    m1, m2 = normal(seed, dimension), normal(seed + 1, dimension)
    S1, S2 = covariance(seed + 2, dimension), covariance(seed + 3, dimension)
    Q, shift = rotation(seed + 4, dimension), normal(seed + 5, dimension)
    d = frechet_distance(m1, S1, m2, S2)
    assert frechet_distance(m1, S1, m1, S1) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(m2, S2, m1, S1) == pytest.approx(d, rel=1e-8)
    moved = frechet_distance(Q @ m1 + shift, Q @ S1 @ Q.T, Q @ m2 + shift, Q @ S2 @ Q.T)
    assert moved == pytest.approx(d, rel=1e-8)


@settings(deadline=None, max_examples=15)
@given(seeds, st.integers(2, 8))
def test_covariances_that_do_not_commute_agree_with_scipys_matrix_square_root(
    seed: int, dimension: int
) -> None:
    m1, m2 = normal(seed, dimension), normal(seed + 1, dimension)
    S1, S2 = covariance(seed + 2, dimension), covariance(seed + 3, dimension)
    root = scipy.linalg.sqrtm((S1 @ S2).numpy()).real
    expected = (m1 - m2).square().sum().item() + np.trace(S1.numpy() + S2.numpy() - 2 * root)
    assert frechet_distance(m1, S1, m2, S2) == pytest.approx(expected, rel=1e-6)


def test_singular_covariances_are_no_special_case() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    along_x, along_y = (
        torch.diag(torch.tensor([4.0, 0, 0])).double(),
        torch.diag(torch.tensor([0, 9.0, 0])).double(),
    )
    assert frechet_distance(zero, along_x, zero, along_y) == pytest.approx(13.0)
    assert frechet_distance(zero, along_x, zero, along_x) == 0.0
    assert frechet_distance(zero, along_x, zero, 0 * along_x) == pytest.approx(4.0)


def test_a_rounding_error_below_zero_makes_no_nan() -> None:
    nearly = torch.diag(torch.tensor([1.0, -1e-17], dtype=torch.float64))
    zero = torch.zeros(2, dtype=torch.float64)
    assert frechet_distance(zero, nearly, zero, nearly) == pytest.approx(0)


@settings(deadline=None, max_examples=25)
@given(seeds, dimensions)
def test_the_root_is_symmetric_positive_and_squares_to_the_matrix(seed: int, dimension: int) -> None:
    S = covariance(seed, dimension)
    root = positive_square_root(S)
    torch.testing.assert_close(root @ root, S)
    torch.testing.assert_close(root, root.T)
    assert torch.linalg.eigvalsh(root).min() >= -1e-12


@settings(deadline=None, max_examples=25)
@given(seeds, st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 1))
def test_however_the_stream_is_cut_the_fit_is_that_of_the_whole(seed: int, sizes: list[int]) -> None:
    features = normal(seed, sum(sizes), 4) * 3 + 100
    gaussian = fit(*features.split(sizes))
    assert gaussian.count == len(features)
    torch.testing.assert_close(gaussian.mean, features.mean(0))
    torch.testing.assert_close(gaussian.covariance, torch.cov(features.T))


def test_a_large_mean_does_not_swallow_the_covariance() -> None:
    features = normal(0, 1000, 3)
    far = fit(*(features + 1e7).split(100))
    torch.testing.assert_close(far.covariance, torch.cov(features.T), rtol=1e-6, atol=1e-7)


def test_the_metric_of_samples_from_two_gaussians_approaches_the_closed_form() -> None:
    n = 200_000
    reference, samples = (
        fit(normal(0, n, 2)),
        fit(normal(1, n, 2) * torch.tensor([2.0, 1.0]) + torch.tensor([1.0, 0.0])),
    )
    assert FrechetDistance().value(reference, samples) == pytest.approx(2.0, abs=0.03)  # 1² + (2 − 1)²


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(TrilemmaError, match=f"at least 2 images, got {count}"):
        FrechetDistance().value(fit(normal(0, 5, 2)), fit(normal(0, count, 2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    features = normal(0, 5, 2)
    features[3, 1] = bad
    with pytest.raises(TrilemmaError, match="not finite"):
        FrechetDistance().value(fit(normal(0, 5, 2)), fit(features))
