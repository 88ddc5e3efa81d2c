"""One cell of a benchmark: an operator, on one shape, against its peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

OURS: Final = "trilemma"
COPY: Final = "copy"


@dataclass(frozen=True)
class Work:
    """The work that a cell measures.

    Attributes:
        function: the operator as Python calls it; a plugin's kernel backend answers to the same arguments.
        arguments, keywords: of the call.
        peers: other ways to do the same, by name.
        error: the largest error of a call, given what it returned, in units of the tolerance that the tests state,
            found against float64; above 1 the cell fails.
        least_bytes: that any implementation must move.
        operations: floating-point operations; 0 where only memory counts.
        explained: the native operator's arguments, where they differ from those of the call.
        doing: makes a function that does the whole work of an implementation once, where that is more than the call.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    peers: Mapping[str, Callable[[], object]]
    error: Callable[[Any], float]
    least_bytes: int
    operations: int = 0
    explained: tuple[Any, ...] | None = None
    doing: Callable[[Callable[..., Any]], Callable[[], Any]] | None = None

    def call(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """Returns a function that does the whole work by `function`."""
        if self.doing is not None:
            return self.doing(function)
        return partial(function, *self.arguments, **self.keywords)


@dataclass(frozen=True)
class Cell:
    """A cell of the grid; `prepare` allocates, so that one cell's memory is gone before the next begins.

    Attributes:
        op: the operator.
        shape: as the table shows it.
        dtype: of the storage.
        prepare: makes the work on a device.
        variant: memory format, direction, or another difference between cells of one shape.
        may_hand_over: whether the operator may leave the work to PyTorch, where that was measured to be faster.
        operator: the operator of the engine that does the work, where it has another name than the cell's.
    """

    op: str
    shape: str
    dtype: torch.dtype
    prepare: Callable[[torch.device], Work]
    variant: str = ""
    may_hand_over: bool = False
    operator: str = ""

    @property
    def title(self) -> str:
        return " ".join(
            filter(None, (self.op, self.shape, str(self.dtype).removeprefix("torch."), self.variant))
        )


def copying(least_bytes: int, device: torch.device) -> Callable[[], object]:
    """Returns a copy that reads and writes `least_bytes` in all: the upper bound for work that only moves memory."""
    source = torch.empty(max(least_bytes // 2, 1), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles for one cell alone: what other cells left behind would make torch recompile and then give up."""
    torch.compiler.reset()
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made
