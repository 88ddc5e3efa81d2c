"""One cell of a benchmark: an operator, on one shape, against its peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch

OURS: Final = "trilemma"
COPY: Final = "copy"


@dataclass(frozen=True)
class Work:
    """What a cell runs.

    Attributes:
        contenders: calls by name, "trilemma" among them; each does the whole work once.
        error: the largest error of what `trilemma` left, in units of the tolerance that its tests state, found
            against float64; above 1 the cell fails.
        least_bytes: that any implementation must move.
        backend: that `trilemma` ran on.
        operations: floating-point operations; 0 where only memory counts.
    """

    contenders: Mapping[str, Callable[[], object]]
    error: Callable[[], float]
    least_bytes: int
    backend: str
    operations: int = 0


@dataclass(frozen=True)
class Cell:
    """A cell of the grid; `prepare` allocates, so that one cell's memory is gone before the next begins.

    Attributes:
        op: the operator.
        shape: as the table shows it.
        dtype: of the storage.
        prepare: makes the work on a device.
        variant: memory format, direction, or what else tells cells of one shape apart.
    """

    op: str
    shape: str
    dtype: torch.dtype
    prepare: Callable[[torch.device], Work]
    variant: str = ""
    tags: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        return " ".join(
            filter(None, (self.op, self.shape, str(self.dtype).removeprefix("torch."), self.variant))
        )


def copying(least_bytes: int, device: torch.device) -> Callable[[], object]:
    """A copy that reads and writes so many bytes in all: the roof of what only moves memory."""
    source = torch.empty(max(least_bytes // 2, 1), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
