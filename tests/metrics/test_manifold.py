"""Precision and recall against their definition, point by point."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import Observation
from trilemma_plugins.metrics import manifold
from trilemma_plugins.metrics.manifold import FeatureBank, Precision, Recall, neighbour_radii


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bank(*batches: Tensor) -> FeatureBank:
    filled = FeatureBank()
    for batch in batches:
        filled.update(Observation(batch))
    return filled


def precision(reference: Tensor, samples: Tensor, k: int = 3) -> float:
    return Precision(k).value(bank(reference), bank(samples))


def recall(reference: Tensor, samples: Tensor, k: int = 3) -> float:
    return Recall(k).value(bank(reference), bank(samples))


def by_definition(points: Tensor, others: Tensor, k: int) -> float:
    """The fraction of points within the k-th neighbour's distance of at least one of the others."""
    points_, others_ = points.double().tolist(), others.double().tolist()
    radius = [
        sorted(math.dist(p, q) for j, q in enumerate(others_) if j != i)[k - 1] for i, p in enumerate(others_)
    ]
    return sum(
        any(math.dist(p, q) <= r for q, r in zip(others_, radius, strict=True)) for p in points_
    ) / len(points_)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
def test_they_are_the_definition_in_any_chunking(seed: int, m: int, d: int, k: int, chunk: int) -> None:
    reference, samples = normal(seed, 12, d), normal(seed + 1, m + k, d) + 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "CHUNK", chunk)
        assert precision(reference, samples, k) == by_definition(samples, reference, k)
        assert recall(reference, samples, k) == by_definition(reference, samples, k)


def test_the_radii_of_points_on_a_line() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    assert neighbour_radii(points, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_radii(points, 3).tolist() == [7, 6, 4, 7]


def test_a_set_lies_in_its_own_manifold_even_where_points_repeat() -> None:
    points = (100 * normal(0, 20, 64)).repeat(
        5, 1
    )  # every radius is 0: nothing but the point itself is inside
    assert precision(points, points) == recall(points, points) == 1.0
    assert precision(points, points + 1e-3) == 0.0


def test_samples_far_away_have_neither_precision_nor_recall() -> None:
    assert (
        precision(normal(0, 50, 4), normal(1, 50, 4) + 100)
        == recall(normal(0, 50, 4), normal(1, 50, 4) + 100)
        == 0
    )


def test_a_dropped_mode_costs_recall_and_an_invented_one_precision() -> None:
    one, other = normal(0, 100, 2), normal(1, 100, 2) + 100
    both = torch.cat([one, other])
    assert precision(both, one) == 1.0
    assert recall(both, one) == 0.5
    assert precision(one, both) == 0.5
    assert recall(one, both) == 1.0


def test_the_bank_keeps_what_it_was_given_though_the_buffer_is_used_again() -> None:
    buffer, filled = torch.zeros(4, 2), FeatureBank()
    for value in (1.0, 2.0):
        filled.update(Observation(buffer.fill_(value)))
    assert filled.points(1)[:, 0].tolist() == [1.0] * 4 + [2.0] * 4


def test_radii_that_were_kept_are_those_of_all_points_so_far() -> None:
    filled = bank(torch.tensor([[0.0], [4.0]]))
    assert filled.radii(1).tolist() == [4, 4]
    filled.update(Observation(torch.tensor([[1.0]])))
    assert filled.radii(1).tolist() == [1, 3, 1]
    assert filled.radii(2).tolist() == [4, 4, 3]


def test_too_few_points_and_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(TrilemmaError, match="at least 4 images in each set, got 3"):
        recall(normal(0, 10, 2), normal(1, 3, 2))
    with pytest.raises(TrilemmaError, match="at least 1 images"):
        Precision().value(bank(normal(0, 10, 2)), bank())
    with pytest.raises(TrilemmaError, match="not finite"):
        precision(normal(0, 10, 2), normal(1, 10, 2) / 0)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_a_k_that_is_no_number_of_neighbours_is_refused(k: object) -> None:
    with pytest.raises(UsageError, match=r"k=.*(number of neighbours|is not int)"):
        Precision(k)  # type: ignore[arg-type]


def test_equal_points_are_at_distance_zero_exactly() -> None:
    points = 100 * normal(0, 40, 64).double()
    assert (manifold.distances(points, points).diagonal() == 0).all()
