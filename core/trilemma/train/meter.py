"""Means of the losses and of other numbers since the last line of the log."""

from __future__ import annotations

from collections.abc import Container, Mapping

import torch
from torch import Tensor

from trilemma.train.processes import Processes


class Meter:
    """Sums by name, on the device, so that no step waits for a number; each name counts its own additions.

    Args:
        processes: over which means are taken; all of them add the same names.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Adds one value to each sum."""
        for name, value in values.items():
            if name not in self._totals:
                self._totals[name] = torch.zeros((), device=self._processes.device)
                self._counts[name] = 0
            self._totals[name] += value.detach() if isinstance(value, Tensor) else value
            self._counts[name] += 1

    def means(self, names: Container[str] | None = None) -> dict[str, float]:
        """Returns the means over additions and processes, of all names or of some."""
        return {
            name: float(self._processes.mean(total / self._counts[name]))
            for name, total in self._totals.items()
            if names is None or name in names
        }

    def clear(self) -> None:
        """Begins anew."""
        self._totals.clear()
        self._counts.clear()

    def share(self) -> None:
        """Gives every process the mean of the sums over all, which a checkpoint holds."""
        for total in self._totals.values():
            total.copy_(self._processes.mean(total))

    def tensors(self) -> dict[str, Tensor]:
        """Returns the sums."""
        return self._totals

    def counts(self) -> dict[str, int]:
        """Returns the numbers of additions."""
        return self._counts

    def restore(self, tensors: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Restores sums and their counts."""
        # In the order in which they were first added, which a file of tensors does not keep.
        self._totals = {name: tensors[name].to(self._processes.device) for name in counts}
        self._counts = {name: int(count) for name, count in counts.items()}
