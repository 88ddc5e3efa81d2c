"""Random numbers of one degraded picture, by its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from trilemma.numerics.step_keys import step_generator

T = TypeVar("T")

_STREAM = 10


class Draws:
    """Random numbers that (seed, key) alone decide, in the order in which they are asked for.

    Args:
        seed: of a whole set of pictures.
        key: of one picture.
    """

    def __init__(self, seed: int, key: int) -> None:
        self._generator = step_generator(seed, key, _STREAM)

    def uniform(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def chance(self, probability: float) -> bool:
        """Returns True with a probability."""
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """Returns an integer from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def one_of(self, entries: Sequence[T]) -> T:
        """Returns one of some entries."""
        return entries[self.integer(0, len(entries) - 1)]

    def order(self, count: int) -> list[int]:
        """Returns 0 … count − 1 in a random order."""
        return torch.randperm(count, generator=self._generator).tolist()

    def normals(self, *shape: int) -> Tensor:
        """Returns standard normals, float64."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)

    def counts(self, rates: Tensor) -> Tensor:
        """Returns Poisson counts of these rates."""
        return torch.poisson(rates, generator=self._generator)
