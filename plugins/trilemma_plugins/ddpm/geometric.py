"""The variance-preserving process whose variance rises geometrically."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma_plugins.ddpm.process import VariancePreserving


@dataclass(frozen=True)
class GeometricVP(VariancePreserving):
    """σ²(t) = σ²_min (σ²_max/σ²_min)^t,   α² = ᾱ = 1 − σ²,   β(t) = σ² ln(σ²_max/σ²_min)/(1 − σ²).

    Each moment of time adds the same share of noise, d log σ² = ln(σ²_max/σ²_min) dt, so that times that are uniform
    are those of the likelihood's weighting with the least variance. σ²_min > 0 stays at t = 0, which a grid still takes
    for the data. The published process has α² = (1 − σ²)/(1 − σ²_min), which is 1 at t = 0 and preserves variance to
    σ²_min.

    Args:
        variance_min, variance_max: σ² at t = 0 and t = 1.

    Raises:
        UsageError: unless 0 < variance_min < variance_max < 1.

    References:
        Vahdat et al., Score-based Generative Modeling in Latent Space, arXiv:2106.05931.
    """

    variance_min: float = 3e-5
    variance_max: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance_min < self.variance_max < 1:
            raise UsageError(
                f"vp-geometric: variance_min={self.variance_min!r}, variance_max={self.variance_max!r}; "
                "expected 0 < variance_min < variance_max < 1"
            )

    @property
    def _log_ratio(self) -> float:
        return math.log(self.variance_max / self.variance_min)

    def variance(self, t: Tensor) -> Tensor:
        """Returns σ²(t), float64, shape of t."""
        return self.variance_min * (self._log_ratio * t.double()).exp()

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        return torch.log1p(-self.variance(t))

    def beta(self, t: Tensor) -> Tensor:
        variance = self.variance(t)
        return self._log_ratio * variance / (1 - variance)

    def log_snr(self, t: Tensor) -> Tensor:
        variance = self.variance(t)
        return torch.log1p(-variance) - variance.log()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # σ² = sigmoid(−λ), and its logarithm keeps its digits on both sides.
        log_variance = torch.nn.functional.logsigmoid(-log_snr.double())
        return ((log_variance - math.log(self.variance_min)) / self._log_ratio).clamp(0, 1)
