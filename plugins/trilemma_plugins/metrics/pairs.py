"""Metrics of samples beside the images that they were drawn for."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.feature_distance import FeatureDistance
from trilemma.interfaces.features import Features
from trilemma.interfaces.metric import FeatureNetwork, PairMetric
from trilemma_plugins.metrics.features import ClassifierFeatures
from trilemma_plugins.metrics.similarity import peak_signal_to_noise, structural_similarity

MOST_DECIBELS = 100.0
# Pairs in one call of the network.
_AT_ONCE = 50


@dataclass(frozen=True)
class PeakSignalToNoise(PairMetric):
    """10 log₁₀(4/MSE) in decibels of pixels in [−1, 1], 100 at most, the mean over the images."""

    def compare(self, samples: Tensor, images: Tensor, network: FeatureNetwork | None) -> Tensor:
        return peak_signal_to_noise(samples, images).clamp_max(MOST_DECIBELS)


@dataclass(frozen=True)
class StructuralSimilarity(PairMetric):
    """The mean structural similarity under windows of 11×11 pixels."""

    def compare(self, samples: Tensor, images: Tensor, network: FeatureNetwork | None) -> Tensor:
        return structural_similarity(samples, images)


@dataclass(frozen=True)
class Perceptual(PairMetric):
    """The distance of two images in all convolutions of the evaluation's feature network (1801.03924).

    It is the mean over convolutions and places of ‖u(x) − u(y)‖², u the outputs of a place at length 1, without learned
    weights: LPIPS by its idea, not by its numbers. So that a network that makes its images smaller misses no detail, it
    looks at larger ones through squares of the side that it was trained on.
    """

    lower_is_better = True
    takes_features = True

    @torch.inference_mode()
    def compare(self, samples: Tensor, images: Tensor, network: FeatureNetwork | None) -> Tensor:
        own = network.network if isinstance(network, ClassifierFeatures) else network
        if not isinstance(own, Features):
            raise UsageError(
                "perceptual compares in the convolutions of a trained feature network; give one as --features"
            )
        distance, total = _distance(own), torch.zeros(len(samples), dtype=torch.float64)
        squares = list(_squares(samples.shape, own.shape))
        for rows, columns in squares:
            pairs = zip(samples.split(_AT_ONCE), images.split(_AT_ONCE), strict=True)
            total += torch.cat([distance(x[..., rows, columns], y[..., rows, columns]) for x, y in pairs])
        return total / len(squares)


@lru_cache(maxsize=1)
def _distance(network: Features) -> FeatureDistance:
    """The distance in a copy of a network, which itself is left without hooks."""
    return FeatureDistance(copy.deepcopy(network))


def _squares(shape: torch.Size, trained: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """The fewest squares of the trained sides that cover images of a shape [B, C, H, W]."""
    rows, columns = (_starts(*sides) for sides in zip(shape[2:], trained[1:], strict=True))
    for row in rows:
        for column in columns:
            yield slice(row, row + trained[1]), slice(column, column + trained[2])


def _starts(side: int, square: int) -> list[int]:
    count = -(-side // square)
    return [round(place * (side - square) / max(1, count - 1)) if count > 1 else 0 for place in range(count)]
