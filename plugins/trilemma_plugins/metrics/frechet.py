"""The Fréchet distance between Gaussian fits of two sets of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.interfaces.metric import Metric, Observation


class GaussianFit:
    """Mean and covariance of a stream of features, float64, merged batch by batch.

    With n seen and b new ones, δ = mean_b − mean:
        mean ← mean + δ b/(n + b),   scatter ← scatter + scatter_b + δ δᵀ n b/(n + b)
    (Chan, Golub, LeVeque 1983), which does not cancel as Σ xxᵀ − n mean meanᵀ would.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._scatter = torch.zeros((), dtype=torch.float64)

    def update(self, batch: Observation) -> None:
        """Takes in features [B, D]."""
        features = batch.features.to("cpu", torch.float64)
        if not len(features):
            return
        mean = features.mean(0)
        centred = features - mean
        delta = mean - self._mean
        total = self.count + len(features)
        self._scatter = self._scatter + centred.T @ centred
        self._scatter = self._scatter + torch.outer(delta, delta) * (self.count * len(features) / total)
        self._mean = self._mean + delta * (len(features) / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """The mean, [D]."""
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, scatter / (n − 1), [D, D].

        Raises:
            TrilemmaError: for fewer than two images or features that are not finite.
        """
        if self.count < 2:
            raise TrilemmaError(
                f"the Fréchet distance needs at least 2 images, got {self.count}; draw more with -n"
            )
        covariance = self._scatter / (self.count - 1)
        if not covariance.isfinite().all():
            raise TrilemmaError("the features are not finite; check the images for NaN and infinite pixels")
        return covariance


def positive_square_root(matrix: Tensor) -> Tensor:
    """Returns the symmetric square root of a symmetric positive semi-definite matrix, by its eigenvectors."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    r"""Returns the squared 2-Wasserstein distance between two Gaussians (Dowson & Landau 1982).

        d² = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½

    The matrix under the last root is symmetric and positive semi-definite, so the trace of its root is the
    sum of the roots of its eigenvalues: no complex numbers and no constant on the diagonal, even where Σ is
    singular.

    Args:
        mean1, mean2: [D], float64.
        covariance1, covariance2: [D, D], float64, symmetric positive semi-definite.
    """
    root = positive_square_root(covariance1)
    inner = root @ covariance2 @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    shift = (mean1 - mean2).square().sum()
    distance = shift + covariance1.trace() + covariance2.trace() - 2 * cross
    # Rounding alone takes it below zero.
    return max(distance.item(), 0.0)


@dataclass(frozen=True)
class FrechetDistance(Metric[GaussianFit]):
    """The Fréchet distance of the samples' features from those of all reference images (1706.08500).

    It is biased upwards for finite sets, by an amount that falls with their size: compare only at equal
    numbers of samples, and never across feature networks. On Inception features it is called FID.
    """

    lower_is_better = True

    def accumulator(self) -> GaussianFit:
        return GaussianFit()

    def value(self, reference: GaussianFit, samples: GaussianFit) -> float:
        return frechet_distance(reference.mean, reference.covariance, samples.mean, samples.covariance)
