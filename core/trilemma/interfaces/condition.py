"""A condition that a network is told beside the state and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError, nearest

# The condition by which a network is told the label that a data set has for an image.
LABEL = "class"


@dataclass(frozen=True)
class Condition:
    """A condition that a denoiser takes by name.

    Attributes:
        name: keyword under which the denoiser receives it.
        size: number of classes; valid labels are 0 .. size − 1.
        null: label that means "no condition"; None where the network was trained without one.
        names: names of the classes in the order of their labels; () where they are not known.
    """

    name: str
    size: int
    null: int | None = None
    names: tuple[str, ...] = ()

    def encode(self, value: Any, indices: Tensor) -> Tensor:
        """Returns the labels [B] of the samples `indices` [B]: one value for all, or a sequence that is cycled through.

        Args:
            value: a label, the name of a class, or a sequence of either.
            indices: of the samples.

        Raises:
            UsageError: for a label that is not an integer in 0 .. size − 1, a name that no class has, or a missing
                value without a null class.
        """
        if value is None:
            if self.null is None:
                raise UsageError(
                    f"condition {self.name!r} is missing and this model has no null class; "
                    f"give a value from 0 to {self.size - 1}"
                )
            return torch.full_like(indices, self.null)
        labels = torch.as_tensor(self._labels(value), dtype=torch.int64).reshape(-1)
        return labels[indices.cpu() % len(labels)].to(indices.device)

    def _labels(self, value: Any) -> Sequence[int]:
        given = value.tolist() if hasattr(value, "tolist") else value
        entries = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        entries = [self._named(entry) if isinstance(entry, str) else entry for entry in entries]
        if not entries:
            raise UsageError(f"condition {self.name!r} is an empty list; give at least one value")
        return [
            checked_integer(entry, self.name, 0, self.size - 1, what=self._beyond(entry)) for entry in entries
        ]

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
