"""The allowance of a constructor: options that ask for absurdly much memory are refused before it is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trilemma.machine.memory import physical_memory

MOST_TENSORS: Final = 20_000

# Where the shape stands among the arguments.
_SHAPED: Final = {
    torch.empty: 0,
    torch.zeros: 0,
    torch.ones: 0,
    torch.full: 0,
    torch.rand: 0,
    torch.randn: 0,
    torch.empty_strided: 0,
    torch.empty_permuted: 0,
    Tensor.new_empty: 1,
    Tensor.new_zeros: 1,
    Tensor.new_ones: 1,
    Tensor.new_full: 1,
}


def _steps(start: float, end: float, steps: int, **_: Any) -> float:
    return steps


def _range(start: float, end: float | None = None, step: float = 1, **_: Any) -> float:
    return abs((start if end is None else end - start) / step)


def _eye(n: int, m: int | None = None, **_: Any) -> float:
    return n * (n if m is None else m)


_COUNTED: Final[dict[Any, Callable[..., float]]] = {
    torch.linspace: _steps,
    torch.logspace: _steps,
    torch.arange: _range,
    torch.eye: _eye,
    torch.randperm: lambda n, **_: n,
}


class Allowance(TorchFunctionMode):
    """Refuses, in this thread, more tensors than `tensors`, or tensors of more than `size` bytes together.

    Args:
        size: bytes of all tensors together, those given up again included.
        tensors: how many tensors may be made; None for any number.
        why: the reason of the bound, for the message.

    Raises:
        ValueError: where more is asked for, before it is made.
    """

    def __init__(self, size: int, tensors: int | None, why: str) -> None:
        super().__init__()
        self._size, self._tensors, self._why = size, tensors, why
        self._made = self._bytes = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _SHAPED or func in _COUNTED:
            dtype = given.get("dtype")
            width = dtype.itemsize if isinstance(dtype, torch.dtype) else torch.float32.itemsize
            self._take(_numbers(func, args, given) * width)
        return func(*args, **given)

    def _take(self, size: float) -> None:
        self._made += 1
        self._bytes += int(size)
        if self._bytes > self._size:
            raise ValueError(
                f"it would take {self._bytes / 1e9:.3g} GB or more, but {self._why}; give smaller sizes"
            )
        if self._tensors is not None and self._made > self._tensors:
            raise ValueError(
                f"it would have more than {self._tensors:,} tensors, but {self._why}; give smaller sizes"
            )


def allowance_of_the_machine(kind: str) -> Allowance:
    """Returns the allowance of a component: the memory there is; for a network 20,000 tensors."""
    memory = physical_memory()
    return Allowance(
        memory,
        MOST_TENSORS if kind == "denoiser" else None,
        f"this machine has {memory / 1e9:,.0f} GB",
    )


def _numbers(func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> float:
    """Returns the count of numbers a call would make; 0 for a wrong call, which then raises by itself."""
    try:
        if func in _COUNTED:
            return _COUNTED[func](*args, **given)
        sizes = given.get("size", args[_SHAPED[func] :])
        if sizes and not isinstance(sizes[0], int):
            sizes = sizes[0]
        return math.prod(max(0, int(size)) for size in sizes)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return 0
