"""Runs the grid of cells and makes a record of each."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

import trilemma
from trilemma.bench.cell import COPY, OURS, Cell, Work, copying
from trilemma.bench.cells import ALL_CELLS
from trilemma.bench.timing import Times, measure, ratio
from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError, described, message_of
from trilemma.ops import choice, explain
from trilemma.registry import catalog
from trilemma.registry.building import import_target


def records(
    ops: Sequence[str], device: torch.device, seconds: float, cold: bool, quick: bool = False
) -> Iterator[dict[str, Any]]:
    """Yields a record for each cell, as it is measured.

    Args:
        ops: operators and steps by name, all where empty.
        device: where to run.
        seconds: to spend on a cell, about.
        cold: flush the caches before each call.
        quick: only the first cell of each operator.

    Raises:
        UsageError: for an operator without cells.
        TrilemmaError: where an operator of ours is wrong or did not run on native kernels; then nothing is timed. A
            plugin's kernel that is wrong or raises is left out, and the record says why under "dropped".
    """
    grid = {**outside_cells(), **ALL_CELLS}
    for op in ops:
        if op not in grid:
            raise UsageError(f"no benchmark of {op!r}; choose from {', '.join(grid)}")
    for op in ops or sorted(grid, key=lambda name: name not in ALL_CELLS):
        cells = list(grid[op]())
        for cell in cells[:1] if quick else cells:
            yield _record(cell, device, seconds, cold)


def _record(cell: Cell, device: torch.device, seconds: float, cold: bool) -> dict[str, Any]:
    work = cell.prepare(device)
    backend = _backend(cell, work)
    errors = {OURS: _checked(cell, work, OURS, work.call(work.function))}
    kernels, dropped = outside_kernels(cell.op)
    for name, kernel in list(kernels.items()):
        # The check has work of its own, since a wrong kernel may write where it should not.
        trial = cell.prepare(device)
        try:
            errors[name] = _checked(cell, trial, name, trial.call(kernel))
            _checked(cell, trial, OURS, trial.call(trial.function))
        except Exception as error:
            # Other people's code may raise anything.
            wrong = name in errors
            errors.pop(name, None)
            del kernels[name]
            dropped[name] = "it changes its arguments" if wrong else _why_dropped(error)
    theirs = {name: _answering(name, work.call(kernel)) for name, kernel in kernels.items()}
    own = {OURS: work.call(work.function), **work.peers, COPY: copying(work.least_bytes, device)}
    while True:
        try:
            times = measure({**own, **theirs}, device, seconds, cold)
            break
        except _Failed as failed:
            dropped[failed.name] = described(failed.error)
            del theirs[failed.name], errors[failed.name]
    return {
        "op": cell.op,
        "shape": cell.shape,
        "dtype": str(cell.dtype).removeprefix("torch."),
        "variant": cell.variant,
        "cold": cold or device.type == "cuda",
        "errors": errors,
        "dropped": dropped,
        "backend": backend,
        "way": "PyTorch" if backend == "reference" else backend,
        "choice": choice.in_force().record(),
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
        explain(cell.operator or cell.op, *work.arguments, **work.keywords)
        if work.explained is None
        else explain(cell.operator or cell.op, *work.explained)
    )
    left = found.passed_over.get("native") in choice.REASONS.values()
    if found.backend == "reference" and not (left or cell.may_hand_over):
        raise TrilemmaError(f"{cell.title}: {found}; build the native libraries first")
    return found.backend


def _checked(cell: Cell, work: Work, name: str, call: Callable[[], Any]) -> float:
    error = work.error(call())
    if not error <= 1:
        raise WrongKernel(f"{cell.title} by {name} is wrong: its error is {error:.3g} times the tolerance")
    return error


class WrongKernel(TrilemmaError):
    """A kernel whose result is not that of its definition."""


class _Failed(BaseException):
    """A kernel of a plugin that raised while it was timed."""

    def __init__(self, name: str, error: BaseException) -> None:
        self.name, self.error = name, error


def _answering(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def answer() -> Any:
        try:
            return call()
        except Exception as error:
            raise _Failed(name, error) from error

    return answer


def _why_dropped(error: BaseException) -> str:
    return message_of(error) if isinstance(error, WrongKernel) else described(error)


def outside_kernels(op: str) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
    """Returns the kernels that plugins bring for an operator, and why a backend brings none that can be called.

    Both are by distribution/backend.
    """
    kernels: dict[str, Callable[..., Any]] = {}
    dropped: dict[str, str] = {}
    for found in catalog().components("kernel"):
        name = f"{found.plugin.distribution}/{found.spec.name}"
        try:
            backend: Any = import_target(found)
            operators = backend.operators if hasattr(backend, "operators") else _none_but_cells(backend)
            if not isinstance(operators, Mapping):
                raise TypeError("its `operators` is no mapping of names to callables")
            if op in operators:
                kernels[name] = operators[op]
        except PluginUnavailable as error:
            dropped[name] = message_of(error)
        except Exception as error:
            # Other people's code may raise anything.
            dropped[name] = described(error)
    return kernels, dropped


def _none_but_cells(backend: Any) -> Mapping[str, Callable[..., Any]]:
    """Returns no operators for a backend that brings cells alone.

    Raises:
        AttributeError: for one that brings neither.
    """
    backend.cells  # noqa: B018
    return {}


def outside_cells() -> dict[str, Callable[[], Iterator[Cell]]]:
    """Returns the cells in `cells` of the kernel backends of plugins, by name, without those named as ours.

    A backend that cannot be asked is left out with a UserWarning that says why.
    """
    cells: dict[str, Callable[[], Iterator[Cell]]] = {}
    for found in catalog().components("kernel"):
        try:
            brought = getattr(import_target(found), "cells", {})
            if not isinstance(brought, Mapping):
                raise TypeError("its `cells` is no mapping of names to functions")
            cells.update(brought)
        except Exception as error:
            # Other people's code may raise anything.
            why = message_of(error) if isinstance(error, PluginUnavailable) else described(error)
            owner = f"{found.plugin.distribution}/{found.spec.name}"
            warnings.warn(f"left out the cells of {owner}: {why}", UserWarning, stacklevel=2)
    return cells


def _summary(times: Times) -> dict[str, float]:
    return {
        "median": 1e6 * times.median,
        "p20": 1e6 * times.quantile(0.2),
        "p80": 1e6 * times.quantile(0.8),
        "rounds": len(times.rounds),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Returns the settings that a figure depends on besides the cell."""
    from trilemma import _C

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": name,
        "isa": _C.cpu_isa(),
        "level": choice.in_force().machine.level,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "trilemma": trilemma.__version__,
    }
