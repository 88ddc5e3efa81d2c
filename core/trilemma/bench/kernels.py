"""Runs the grid of cells and makes a record of each."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

import trilemma
from trilemma.bench.cell import COPY, OURS, Cell, Work, copying
from trilemma.bench.cells import ALL_CELLS
from trilemma.bench.timing import Times, measure, ratio
from trilemma.errors import TrilemmaError, UsageError
from trilemma.lookup import import_target
from trilemma.ops import explain
from trilemma.plugins import catalog


def operators() -> list[str]:
    """The operators that have cells."""
    return list(ALL_CELLS)


def records(
    ops: Sequence[str], device: torch.device, seconds: float, cold: bool, quick: bool = False
) -> Iterator[dict[str, Any]]:
    """A record for each cell, as it is measured.

    Args:
        ops: operators, all where empty.
        device: where to run.
        seconds: to spend on a cell, about.
        cold: flush the caches before each call.
        quick: only the first cell of each operator.

    Raises:
        UsageError: for an operator without cells.
        TrilemmaError: where an operator is wrong, or did not run on native kernels: nothing is timed then.
    """
    for op in ops:
        if op not in ALL_CELLS:
            raise UsageError(f"no benchmark of {op!r}; choose from {', '.join(ALL_CELLS)}")
    for op in ops or ALL_CELLS:
        cells = list(ALL_CELLS[op]())
        for cell in cells[:1] if quick else cells:
            yield _record(cell, device, seconds, cold)


def _record(cell: Cell, device: torch.device, seconds: float, cold: bool) -> dict[str, Any]:
    work = cell.prepare(device)
    ours = {OURS: work.call(work.function)}
    theirs = {name: work.call(kernels[cell.op]) for name, kernels in _outside().items() if cell.op in kernels}
    backend = _backend(cell, work)
    errors = {name: _checked(cell, work, name, call) for name, call in {**ours, **theirs}.items()}
    copy = copying(work.least_bytes, device)
    times = measure({**ours, **theirs, **work.peers, COPY: copy}, device, seconds, cold)
    return {
        "op": cell.op,
        "shape": cell.shape,
        "dtype": str(cell.dtype).removeprefix("torch."),
        "variant": cell.variant,
        "cold": cold or device.type == "cuda",
        "errors": errors,
        "backend": backend,
        "least_bytes": work.least_bytes,
        "operations": work.operations,
        "microseconds": {name: _summary(found) for name, found in times.items()},
        "ratio": {
            name: ratio(found, times[OURS]) for name, found in times.items() if name not in (OURS, COPY)
        },
        "of_copy": times[COPY].median / times[OURS].median,
        **machine(device),
    }


def _backend(cell: Cell, work: Work) -> str:
    found = (
        explain(cell.op, *work.arguments, **work.keywords)
        if work.explained is None
        else explain(cell.op, *work.explained)
    )
    if found.backend == "reference":
        raise TrilemmaError(f"{cell.title}: {found}; build the native libraries first")
    return found.backend


def _checked(cell: Cell, work: Work, name: str, call: Callable[[], Any]) -> float:
    error = work.error(call())
    if not error <= 1:
        raise TrilemmaError(f"{cell.title} by {name} is wrong: its error is {error:.3g} times the tolerance")
    return error


def _outside() -> dict[str, Mapping[str, Callable[..., Any]]]:
    """The operators of every kernel backend that a plugin registered, by the backend's address."""
    backends: dict[str, Any] = {
        found.address: import_target(found) for found in catalog().components("kernel")
    }
    return {address: backend.operators for address, backend in backends.items()}


def _summary(times: Times) -> dict[str, float]:
    return {
        "median": 1e6 * times.median,
        "p20": 1e6 * times.quantile(0.2),
        "p80": 1e6 * times.quantile(0.8),
        "rounds": len(times.rounds),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure depends on besides the cell."""
    from trilemma import _C

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": name,
        "isa": _C.cpu_isa(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "trilemma": trilemma.__version__,
    }
