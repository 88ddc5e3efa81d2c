"""Classes, by label or name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trilemma.checks import checked_integer
from trilemma.errors import UsageError, nearest
from trilemma.interfaces.condition.condition import Condition
from trilemma.interfaces.condition.prepared import Prepared

# Words with blanks between them, which the shell's quotes kept together: the name of a class.
_WORD = r"[^\s,()\[\]{}'\"]+"
_WORDS = re.compile(rf"{_WORD}(\s+{_WORD})+")
# The condition by which a network is told the label that a data set has for an image.
LABEL = "class"


@dataclass(frozen=True)
class ClassCondition(Condition):
    """A class. The network receives labels int64 [B] under its name.

    A value is a label, the name of a class, or a sequence of either.

    Attributes:
        name: under which a label is given and received.
        size: number of classes; valid labels are 0 .. size − 1.
        null: label that means "no class"; None where the network was trained without one.
        names: names of the classes in the order of their labels; () where they are not known.
    """

    size: int
    null: int | None = None
    names: tuple[str, ...] = ()

    kind = "class"

    @property
    def has_null(self) -> bool:
        return self.null is not None

    @property
    def keywords(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def fill(self) -> int:
        assert self.null is not None
        return self.null

    def entries(self, values: Sequence[Any]) -> Prepared:
        labels = [self.fill if entry is None else self.label(entry) for entry in values]
        return Prepared({self.name: torch.tensor(labels, dtype=torch.int64)})

    def label(self, value: Any) -> int:
        """Returns the label that a label or a name means.

        Raises:
            UsageError: for a label that is not an integer in 0 .. size − 1, or a name that no class has.
        """
        if isinstance(value, str):
            return self._named(value)
        return checked_integer(value, self.name, 0, self.size - 1, what=self._beyond(value))

    def drawn(self, count: int, generator: torch.Generator) -> Prepared:
        return Prepared({self.name: torch.arange(count) % self.size})

    def expected(self) -> str:
        return f"give a value from 0 to {self.size - 1}"

    def parse(self, text: str) -> Any:
        """Returns the label, the name or the list that a text means; words with blanks between them are a name."""
        return " ".join(text.split()) if _WORDS.fullmatch(text) else super().parse(text)

    def _beyond(self, label: Any) -> str:
        """Describes what is wrong with a label out of range. The name of a class that is a number is given in
        quotes."""
        return (
            f'is a label out of range, "{label}" in quotes a name'
            if str(label) in self.names
            else "is out of range"
        )

    def _named(self, name: str) -> int:
        if name in self.names:
            return self.names.index(name)
        near = nearest(name, self.names)
        some = ", ".join(self.names[:5]) + (", …" if len(self.names) > 5 else "")
        known = (
            f"did you mean {near[0]!r}?" if near else f"its classes are {some}" if some else "give its number"
        )
        raise UsageError(f"{self.name}={name!r} is no class of this model; {known}")
