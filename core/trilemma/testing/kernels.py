"""What every kernel backend must do: equal the reference on its operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from trilemma.bench.cells import ALL_CELLS


def kernel_checks(backend: Any) -> Iterator[tuple[str, Callable[[], str]]]:
    """Pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    operators = getattr(backend, "operators", None)
    yield "names operators of the engine", lambda: _operators(operators)
    if isinstance(operators, Mapping):
        for name, kernel in operators.items():
            if name in ALL_CELLS:
                yield f"{name} equals its definition", partial(_equals, name, kernel)


def _operators(operators: Any) -> str:
    assert isinstance(operators, Mapping), "it has no mapping `operators` of names to callables"
    unknown = [name for name in operators if name not in ALL_CELLS]
    assert not unknown, f"{', '.join(unknown)}: no operator of the engine; they are {', '.join(ALL_CELLS)}"
    return ", ".join(operators)


def _equals(name: str, kernel: Callable[..., Any]) -> str:
    cell = min(ALL_CELLS[name](), key=lambda entry: len(entry.shape))
    work = cell.prepare(torch.device("cpu"))
    error = work.error(work.call(kernel)())
    assert error <= 1, f"{cell.title} is wrong: its error is {error:.3g} times the tolerance"
    return f"{cell.title} to {error:.2g} of the tolerance"
