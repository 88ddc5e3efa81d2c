"""Improved precision and recall: is a point inside the other set's k-nearest-neighbour manifold?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import TrilemmaError
from trilemma.interfaces.metric import Metric, Observation

MOST_NEIGHBOURS = 9_999
# Rows of a distance matrix held at once: 512 × 10,000 × 8 bytes = 41 MB.
CHUNK = 512


class FeatureBank:
    """All the features of a set, kept as they come."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []
        self._radii: dict[int, Tensor] = {}

    def update(self, batch: Observation) -> None:
        """Takes in features [B, D]."""
        self._radii.clear()
        self._batches.append(batch.features.to("cpu", torch.float32, copy=True))

    def points(self, least: int) -> Tensor:
        """Returns the features [N, D], float64.

        Raises:
            TrilemmaError: for fewer than `least` points or features that are not finite.
        """
        count = sum(len(batch) for batch in self._batches)
        if count < least:
            raise TrilemmaError(
                f"precision and recall need at least {least} images in each set, got {count}; draw more"
            )
        points = torch.cat(self._batches).double()
        if not points.isfinite().all():
            raise TrilemmaError("the features are not finite; check the images for NaN and infinite pixels")
        return points

    def radii(self, k: int) -> Tensor:
        """Returns the radii [N] of the manifold's balls, kept for the next time: see `neighbour_radii`."""
        if k not in self._radii:
            self._radii[k] = neighbour_radii(self.points(k + 1), k)
        return self._radii[k]


def distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Returns Euclidean distances [R, C] from differences: |x|² + |y|² − 2xy would not give 0 for equal points."""
    return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")


def neighbour_radii(points: Tensor, k: int) -> Tensor:
    """Returns the distance [N] of every point of [N, D] to its k-th nearest other point."""
    radii = []
    for start in range(0, len(points), CHUNK):
        block = distances(points[start : start + CHUNK], points)
        rows = torch.arange(len(block))
        block[rows, rows + start] = torch.inf
        # This is ten times as fast as kthvalue.
        radii.append(block.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(radii)


def fraction_inside(points: Tensor, manifold: Tensor, radii: Tensor) -> float:
    r"""Returns the fraction of `points` [M, D] in the union of balls of `radii` [N] around those of `manifold` [N, D].

    f(φ, Φ) = 1 if |φ − φ'| ≤ |φ' − NN_k(φ', Φ)| for at least one φ' ∈ Φ, else 0   (1904.06991, eq. 1)
    """
    inside = 0
    for start in range(0, len(points), CHUNK):
        inside += int((distances(points[start : start + CHUNK], manifold) <= radii).any(1).sum())
    return inside / len(points)


@dataclass(frozen=True)
class _NeighbourMetric(Metric[FeatureBank]):
    k: int = 3

    reference_images = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.k, "k", 1, MOST_NEIGHBOURS, what="is not a number of neighbours")

    def accumulator(self) -> FeatureBank:
        return FeatureBank()


@dataclass(frozen=True)
class Precision(_NeighbourMetric):
    """The fraction of the samples inside the manifold of the reference images (1904.06991).

    Args:
        k: neighbours that set a ball's radius.
    """

    def value(self, reference: FeatureBank, samples: FeatureBank) -> float:
        return fraction_inside(samples.points(1), reference.points(self.k + 1), reference.radii(self.k))


@dataclass(frozen=True)
class Recall(_NeighbourMetric):
    """The fraction of the reference images inside the manifold of the samples (1904.06991).

    Args:
        k: neighbours that set a ball's radius.
    """

    def value(self, reference: FeatureBank, samples: FeatureBank) -> float:
        return fraction_inside(reference.points(1), samples.points(self.k + 1), samples.radii(self.k))
