"""Numbers in a range, such as a noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trilemma.checks import checked_number
from trilemma.errors import UsageError
from trilemma.interfaces.condition.condition import Condition
from trilemma.interfaces.condition.prepared import Prepared


@dataclass(frozen=True)
class ScalarCondition(Condition):
    """A number in [low, high]. The network receives it as float32 [B] under its name.

    Where there is a null it also receives `<name>_given`, bool [B]: False is the null.

    Attributes:
        name: under which a number is given.
        low, high: bounds, themselves allowed.
        null: whether there is a null.

    Raises:
        UsageError: for bounds that are not finite or do not rise.
    """

    low: float = 0.0
    high: float = 1.0
    null: bool = False

    kind = "scalar"

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UsageError(
                f"condition {self.name!r}: low={self.low} and high={self.high} bound no range; give low below high"
            )

    @property
    def has_null(self) -> bool:
        return self.null

    @property
    def keywords(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}_given") if self.null else (self.name,)

    def entries(self, values: Sequence[Any]) -> Prepared:
        numbers = [
            float(self.fill) if entry is None else checked_number(entry, self.name, self.low, self.high)
            for entry in values
        ]
        tensors = {self.name: torch.tensor(numbers, dtype=torch.float32)}
        if self.null:
            tensors[f"{self.name}_given"] = torch.tensor([entry is not None for entry in values])
        return Prepared(tensors)

    def drawn(self, count: int, generator: torch.Generator) -> Prepared:
        places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        return self.entries((self.low + (self.high - self.low) * places).tolist())

    def expected(self) -> str:
        return f"give a number from {self.low:g} to {self.high:g}"
