"""Values of conditions that are ready for the network: made once a request, taken from by sample index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.registry import building


@dataclass(frozen=True)
class Prepared:
    """The values of one condition as tensors.

    Sample i has entry i modulo their number, so that one entry is that of all samples.

    Attributes:
        tensors: [U, ...] by keyword, of the values that differ.
        which: int64 [N], the value of each entry; None where entry i is value i.
    """

    tensors: Mapping[str, Tensor]
    which: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())) if self.which is None else self.which)

    @property
    def identity(self) -> str:
        """A text that tells these values from others, by the digests of their tensors."""
        parts = {**self.tensors, **({} if self.which is None else {"which": self.which})}
        return ", ".join(f"{name} {building.condition(tensor)}" for name, tensor in sorted(parts.items()))

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """Returns the tensors [B, ...] of the samples `indices`, int64 [B], on their device."""
        entries = indices % len(self)
        if self.which is not None:
            entries = self.which.to(indices.device)[entries]
        return {
            name: tensor.to(indices.device).index_select(0, entries) for name, tensor in self.tensors.items()
        }

    def example(self, device: torch.device) -> dict[str, Tensor]:
        """Returns tensors [1, ...] as those of a sample are, for checks before anything is drawn."""
        return self.take(torch.zeros(1, dtype=torch.int64, device=device))

    def to(self, device: torch.device) -> Prepared:
        """Returns the same values on a device."""
        which = None if self.which is None else self.which.to(device)
        return Prepared({name: tensor.to(device) for name, tensor in self.tensors.items()}, which)


@dataclass(frozen=True)
class PreparedConditions:
    """The values of all conditions of a network.

    Attributes:
        parts: one a condition.
    """

    parts: Sequence[Prepared]

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """Returns the tensors [B, ...] of all conditions for the samples `indices`, int64 [B], on their device."""
        return {name: tensor for part in self.parts for name, tensor in part.take(indices).items()}

    def example(self, device: torch.device) -> dict[str, Tensor]:
        """Returns tensors [1, ...] of all conditions as those of a sample are, for checks before anything is drawn."""
        return {name: tensor for part in self.parts for name, tensor in part.example(device).items()}

    def to(self, device: torch.device) -> PreparedConditions:
        """Returns the same values on a device."""
        return PreparedConditions([part.to(device) for part in self.parts])
