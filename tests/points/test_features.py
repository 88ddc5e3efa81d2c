"""The features of points: distances that see lost modes and blur, classes that are the modes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import Evaluator, FeatureNetwork
from trilemma_plugins.points.dataset import Mixture2D
from trilemma_plugins.points.features import PointsFeatures
from trilemma_plugins.points.law import rounded


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator("mixture2d", "points-features", ("frechet", "class-agreement"))


@pytest.fixture(scope="module")
def test_split() -> Mixture2D:
    return Mixture2D("test")


def frechet(evaluator: Evaluator, points: Tensor) -> float:
    value = evaluator.measure([(points, None)])["frechet"]
    assert value is not None
    return value


def test_the_other_split_is_near(evaluator: Evaluator) -> None:
    found = evaluator.baseline["metrics"]
    assert found["frechet"] < 2e-3
    assert found["class-agreement"] > 0.9999


@pytest.mark.parametrize("fault", ["a lost mode", "blur", "one mode twice as frequent"])
def test_faults_show(evaluator: Evaluator, test_split: Mixture2D, fault: str) -> None:
    points, labels = test_split.images, test_split.labels
    if fault == "a lost mode":
        points = points[labels != 3]
    elif fault == "blur":
        noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
        points = rounded(points / 127.5 - 1 + 0.04 * noise)
    else:
        points = torch.cat([points, points[labels == 0]])
    assert frechet(evaluator, points) > 10 * frechet(evaluator, test_split.images)


def test_more_than_two_moments_count(evaluator: Evaluator) -> None:
    """A normal of the mixture's own mean and covariance is not the mixture."""
    normal = torch.randn(20_000, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    points = rounded(normal * (0.6**2 / 2 + 0.04**2) ** 0.5)
    train = Mixture2D().batch(torch.arange(20_000))[0]
    assert (points / 127.5 - 1).flatten(1).var(0).tolist() == pytest.approx(
        train.flatten(1).var(0).tolist(), rel=0.05
    )
    assert frechet(evaluator, points) > 0.1


def test_it_says_what_it_is() -> None:
    features = PointsFeatures(modes=5, seed=2)
    assert isinstance(features, FeatureNetwork)
    assert "modes=5" in features.identity
    assert "seed=2" in features.identity
    x = torch.rand(4, 2, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = features.observe(x)
    assert seen.features.shape == (4, 66)
    assert seen.logits is not None
    assert seen.logits.shape == (4, 5)
    assert torch.equal(seen.features, PointsFeatures(modes=5, seed=2).observe(x).features)
    assert not torch.equal(seen.features, PointsFeatures(modes=5, seed=3).observe(x).features)


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="even number"):
        PointsFeatures(frequencies=3)
    with pytest.raises(TrilemmaError, match="--features"):
        PointsFeatures().observe(torch.zeros(1, 1, 28, 28))
