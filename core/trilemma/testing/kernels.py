"""Every kernel backend must equal the reference on its operators, and its cells the formulas that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from trilemma.bench.cell import Cell
from trilemma.bench.cells import ALL_CELLS


def kernel_checks(backend: Any) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    cells = getattr(backend, "cells", None)
    if isinstance(cells, Mapping):
        for name, make in cells.items():
            yield f"{name} equals its formula", partial(_equals, make)
    operators = getattr(backend, "operators", None)
    if operators is None and cells is not None:
        return
    yield "names operators of the engine", lambda: _operators(operators)
    if isinstance(operators, Mapping):
        for name, kernel in operators.items():
            if name in ALL_CELLS:
                yield f"{name} equals its definition", partial(_equals, ALL_CELLS[name], kernel)


def _operators(operators: Any) -> str:
    assert isinstance(operators, Mapping), "it has no mapping `operators` of names to callables"
    unknown = [name for name in operators if name not in ALL_CELLS]
    assert not unknown, f"{', '.join(unknown)}: no operator of the engine; they are {', '.join(ALL_CELLS)}"
    return ", ".join(operators)


def _equals(cells: Callable[[], Iterator[Cell]], kernel: Callable[..., Any] | None = None) -> str:
    cell = min(cells(), key=lambda entry: len(entry.shape))
    work = cell.prepare(torch.device("cpu"))
    error = work.error(work.call(kernel or work.function)())
    assert error <= 1, f"{cell.title} is wrong: its error is {error:.3g} times the tolerance"
    return f"{cell.title} to {error:.2g} of the tolerance"
