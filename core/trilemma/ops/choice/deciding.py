"""The choice in force: of this machine's calibration, else of the level's record, else the careful way."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from trilemma.errors import TrilemmaError, message_of
from trilemma.files.paths import user_path
from trilemma.ops import native
from trilemma.ops.choice.record import TILES, Cell, Machine, Record, shipped
from trilemma.ops.choice.ways import (
    CHOSEN,
    DTYPES,
    NAMES,
    NATIVE,
    POWERS,
    REASONS,
    STRONG_WITH_TILES,
    UNMEASURED,
    place,
    spread,
)

CALIBRATION, SHIPPED, DEFAULT = "calibration", "shipped", "default"
VARIABLE: Final = "TRILEMMA_CALIBRATION"

_OLDER: Final = "the native library is older than trilemma and chooses by itself; install trilemma again"

# The cells of one operator, dtype and layout.
Group = tuple[str, str, str]


@dataclass(frozen=True)
class InForce:
    """The choice in force.

    Attributes:
        source: the first that knew anything: "calibration", "shipped" or "default".
        path: the calibration's file.
        machine: what it is for.
        problem: why a calibration was passed over; "" where there is none, or none was asked for.
        tables: by operator, a way for each dtype, layout and power of two of both sizes.
    """

    source: str
    path: Path | None
    machine: Machine
    problem: str
    tables: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Returns the sha256 of the tables: two choices of one digest take the same ways."""
        found = hashlib.sha256()
        for op, table in sorted(self.tables.items()):
            found.update(op.encode() + b"\0" + table)
        return found.hexdigest()

    def record(self) -> dict[str, str]:
        """Returns the source and the digest, for a provenance."""
        return {"source": self.source, "sha256": self.digest}

    def __str__(self) -> str:
        names = {
            CALIBRATION: f"the calibration {self.path}",
            SHIPPED: f"the record of {self.machine.level}",
            DEFAULT: f"the careful way, as {self.machine.level} has no record",
        }
        return f"{names[self.source]} (sha256 {self.digest[:12]})"


class _State:
    """The choice of this process.

    Attributes:
        left: the tables of operators that choose in Python, without those that take the native kernel everywhere.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.key: tuple[str | None, int] | None = None
        self.found: InForce | None = None
        self.left: dict[str, bytes] = {}
        self.warned: set[str] = set()


_state = _State()
_STORAGES: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def why_left(op: str, dtype: torch.dtype, layout: int, first_squared: int, second_squared: int) -> str:
    """Returns why a call is left to PyTorch's own way; "" where it is not.

    Args:
        op: an operator that chooses in Python.
        dtype: of the call.
        layout: 0 or 1, as `CHOSEN` names them.
        first_squared, second_squared: the squares of its sizes.
    """
    table = _state.left.get(op)
    if table is None or dtype not in _STORAGES:
        return ""
    way = table[place(_STORAGES[dtype], layout, first_squared, second_squared)]
    return "" if way == NATIVE else REASONS[way]


def chooses(op: str) -> bool:
    """Returns whether any call of an operator that chooses in Python may be left to PyTorch."""
    return op in _state.left


def in_force() -> InForce:
    """Returns the choice in force, after it was looked up anew where threads or TRILEMMA_CALIBRATION have changed.

    A calibration that cannot be used is passed over with a UserWarning.
    """
    found = prepared()
    if found.problem and found.problem not in _state.warned:
        _state.warned.add(found.problem)
        warnings.warn(found.problem, UserWarning, stacklevel=2)
    return found


def prepared() -> InForce:
    """As `in_force`, in silence."""
    key = (os.environ.get(VARIABLE), torch.get_num_threads())
    if key == _state.key and _state.found is not None:
        return _state.found
    with _state.lock:
        found = look_up(key[0] or "", Machine.here())
        if not native.load() and not _is_told():
            found = replace(found, problem=_OLDER)
        _take(found.tables)
        _state.key, _state.found = key, found
    return found


def forget() -> None:
    """Has the next call of `in_force` look everything up anew."""
    with _state.lock:
        _state.key = _state.found = None
        _state.warned.clear()


def look_up(asked: str, machine: Machine) -> InForce:
    """Returns the choice for a machine.

    Args:
        asked: "" for the calibration that is kept of the machine, if any, "off" for none, or a file's path.
        machine: this one.
    """
    calibration, path, problem = _calibration(asked, machine)
    sources = {CALIBRATION: _grouped(calibration.cells if calibration else ()), SHIPPED: _shipped(machine)}
    used: set[str] = set()
    tables = {}
    for op, chosen in CHOSEN.items():
        parts = []
        for dtype in DTYPES:
            for layout in chosen.layouts:
                group = (op, dtype, layout)
                name = next((name for name, cells in sources.items() if group in cells), DEFAULT)
                used.add(name)
                parts.append(_careful(group, machine) if name == DEFAULT else _spread(sources[name][group]))
        tables[op] = b"".join(parts)
    source = next((name for name in (CALIBRATION, SHIPPED) if name in used), DEFAULT)
    return InForce(source, path if source == CALIBRATION else None, machine, problem, tables)


@contextmanager
def forced(ways: Mapping[str, int]) -> Iterator[None]:
    """Takes one way for all calls of some operators inside, whatever was measured."""
    before = prepared()
    with _state.lock:
        try:
            _take({**before.tables, **{op: everywhere(way) for op, way in ways.items()}})
            yield
        finally:
            _take(before.tables)


def force(op: str, way: int) -> None:
    """Takes one way for all calls of an operator, until `forced` around it ends."""
    _take({op: everywhere(way)})


def everywhere(way: int) -> bytes:
    """Returns a table of one way."""
    return bytes([way]) * (len(DTYPES) * 2 * POWERS * POWERS)


def _take(tables: Mapping[str, bytes]) -> None:
    """Hands tables over to whoever looks the ways up."""
    for op, table in tables.items():
        if CHOSEN[op].natively:
            if not native.load() and _is_told():
                torch.ops.trilemma.choose(op, torch.frombuffer(bytearray(table), dtype=torch.uint8))
        elif table.count(NATIVE) == len(table):
            _state.left.pop(op, None)
        else:
            _state.left[op] = table


def _is_told() -> bool:
    """Returns whether the native library takes tables, as one of an earlier build does not."""
    return hasattr(torch.ops.trilemma, "choose")


def _calibration(asked: str, machine: Machine) -> tuple[Record | None, Path | None, str]:
    """The record of a machine with its path, or why it cannot be used; nothing of all where none is there."""
    if asked == "off":
        return None, None, ""
    try:
        path = user_path(asked) if asked else machine.file
        if not asked and not path.exists():
            return None, None, ""
        record = Record.read(path)
    except TrilemmaError as error:
        return None, None, f"{message_of(error)} (passed over)"
    except (OSError, RuntimeError) as error:
        return None, None, f"no calibration can be looked for: {message_of(error)}"
    for name in ("cpu", "level", "torch", "threads"):
        its, ours = getattr(record.machine, name), getattr(machine, name)
        if its != ours:
            why = f"the calibration {path} is for {name} {its}, and here is {ours}"
            return None, None, f"{why}; it is passed over, make one with trilemma calibrate"
    return record, path, ""


def _shipped(machine: Machine) -> dict[Group, list[Cell]]:
    """The cells of the level's record; with tiles also of the level below, but where they make PyTorch strong."""
    record = shipped(machine.level)
    found = _grouped(record.cells if record else ())
    if machine.level == TILES and (below := shipped("x86-64-v4-bf16")) is not None:
        for group, cells in _grouped(below.cells).items():
            if group[:2] not in STRONG_WITH_TILES:
                found.setdefault(group, cells)
    return found


def _grouped(cells: Iterable[Cell]) -> dict[Group, list[Cell]]:
    groups: dict[Group, list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.op, cell.dtype, cell.layout), []).append(cell)
    return groups


def _spread(cells: Iterable[Cell]) -> bytes:
    return spread((cell.sizes, NAMES[cell.way]) for cell in cells)


def _careful(group: Group, machine: Machine) -> bytes:
    """The way where nothing was measured."""
    strong = machine.level == TILES and group[:2] in STRONG_WITH_TILES
    return bytes([UNMEASURED if strong else CHOSEN[group[0]].unmeasured]) * (POWERS * POWERS)
