"""Guidance in an interval of times."""

from __future__ import annotations

from dataclasses import dataclass

from trilemma.errors import UsageError
from trilemma.guiding.modifiers import Factor


@dataclass(frozen=True)
class Interval(Factor):
    """D for lo ≤ t ≤ hi and the plain prediction f elsewhere, where f alone is evaluated and paid.

    The paper gives the interval in noise levels σ; here it is in times, 0 = data.

    Args:
        lo, hi: ends of the interval, in [0, 1].

    Raises:
        UsageError: for ends that are no interval.

    References:
        Kynkäänniemi et al., Applying Guidance in a Limited Interval, arXiv:2404.07724.
    """

    lo: float = 0.0
    hi: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lo <= self.hi <= 1:
            raise UsageError(f"interval: lo={self.lo!r}, hi={self.hi!r}; give times with 0 <= lo <= hi <= 1")

    def factor(self, t: float) -> float:
        return 1.0 if self.lo <= t <= self.hi else 0.0
