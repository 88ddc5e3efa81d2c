"""Guidance whose strength follows the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trilemma.errors import UsageError
from trilemma.guiding.modifiers import Factor


@dataclass(frozen=True)
class Schedule(Factor):
    """f + k(t)·(D − f), k from `first` at the prior (t = 1) to `last` at the data (t = 0):

        k = last + (first − last)·u(t),   u = t (linear) or (1 − cos πt)/2 (cosine).

    k multiplies the correction, so cfg at scale s becomes cfg at scale 1 + k(s − 1). The defaults are the rising
    linear schedule of the paper, as strong on average as the constant.

    Args:
        first, last: k at t = 1 and at t = 0.
        shape: "linear" or "cosine".

    Raises:
        UsageError: for an end that is not finite, or an unknown shape.

    References:
        Wang et al., Analysis of Classifier-Free Guidance Weight Schedulers, arXiv:2404.13040.
    """

    first: float = 0.0
    last: float = 2.0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in ("linear", "cosine"):
            raise UsageError(f"schedule: unknown shape {self.shape!r}; choose linear or cosine")

    def factor(self, t: float) -> float:
        u = t if self.shape == "linear" else (1 - math.cos(math.pi * t)) / 2
        return self.last + (self.first - self.last) * u
