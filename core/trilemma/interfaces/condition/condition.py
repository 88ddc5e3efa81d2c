"""The common part of all conditions: a name, a null or none, and the tensors that the network receives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.condition.prepared import Prepared
from trilemma.registry import building
from trilemma.registry.spec import parse_value


@dataclass(frozen=True)
class Condition(ABC):
    """A condition that a denoiser takes by name.

    A value is prepared once a request, or once a training set, and each batch takes the tensors of its samples. A value
    that is missing or None is the null. In all its tensors the null is one number, `fill`, the same in sampling, where
    guidance asks for it, and in training, where conditions are dropped.

    Attributes:
        name: under which a value is given.
        kind: what tables of a card call it, such as "class".
    """

    name: str

    kind: ClassVar[str] = ""

    @property
    @abstractmethod
    def has_null(self) -> bool:
        """True where there is a null: a value that means "no condition", which the network was trained with."""

    @property
    @abstractmethod
    def keywords(self) -> tuple[str, ...]:
        """Names of the tensors that the network receives for it."""

    @property
    def fill(self) -> int:
        """The number of which the tensors of the null consist."""
        return 0

    @abstractmethod
    def entries(self, values: Sequence[Any]) -> Prepared:
        """Returns the tensors of some values. None is the null, which there is.

        Raises:
            UsageError: for a value that is none of this condition.
        """

    @abstractmethod
    def drawn(self, count: int, generator: torch.Generator) -> Prepared:
        """Returns tensors of `count` values for tests, drawn at random where there are more; no encoder is asked."""

    @abstractmethod
    def expected(self) -> str:
        """Returns the advice of error messages, such as "give a value from 0 to 9"."""

    def prepare(self, value: Any) -> Prepared:
        """Returns a value as tensors: one value for all samples, or a sequence of which sample i takes entry i mod N.

        Args:
            value: one value, a sequence of values, or None for the null; what was prepared before is returned as it is.

        Raises:
            UsageError: for a value that is none of this condition, or a missing one where there is no null.
        """
        if isinstance(value, Prepared):
            return value
        values = self.listed(value)
        if not values:
            raise UsageError(f"condition {self.name!r} is an empty list; give at least one value")
        if not self.has_null and any(entry is None for entry in values):
            raise UsageError(
                f"condition {self.name!r} is missing and this model has no null for it; {self.expected()}"
            )
        return self.entries(values)

    def absent(self, indices: Tensor) -> dict[str, Tensor]:
        """Returns the null for the samples `indices` [B].

        Raises:
            UsageError: where there is none.
        """
        return self.prepare(None).take(indices)

    def drop(self, given: Mapping[str, Tensor], where: Tensor) -> dict[str, Tensor]:
        """Returns the tensors of this condition, those of the null where `where` is True.

        Args:
            given: tensors [B, ...] by keyword; those of other conditions are left out of the result.
            where: bool [B].

        Raises:
            UsageError: where there is no null.
        """
        if not self.has_null:
            raise UsageError(
                f"condition {self.name!r} has no null to drop it for; set drop = 0, or give the network a null"
            )
        return {
            name: given[name].masked_fill(where.view(-1, *(1,) * (given[name].dim() - 1)), self.fill)
            for name in self.keywords
        }

    def listed(self, value: Any) -> list[Any]:
        """Returns the values of a sequence, an array or a tensor; of anything else a list of itself."""
        given = value.tolist() if hasattr(value, "tolist") else value
        return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]

    def parse(self, text: str) -> Any:
        """Returns the value that a text of the command line means: a literal, a bare word or a list of them."""
        return parse_value(text)

    def recorded(self, value: Any, prepared: Prepared | None) -> Any:
        """Returns a value as provenance holds it: itself where it is short, else a digest of its content.

        Args:
            value: as it was given.
            prepared: the same, prepared; None for the null.
        """
        return value.identity if isinstance(value, Prepared) else building.condition(value)

    def source(self) -> str | None:
        """Returns the identity of the network that prepares values, a part of the provenance; None where none does."""
        return None
