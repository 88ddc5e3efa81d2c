"""Records: the ways that were measured on a machine, as a file in JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch

from trilemma.errors import DataError, shown
from trilemma.files.cache_folder import cache_folder
from trilemma.files.regular import read_text
from trilemma.machine import processor
from trilemma.ops.choice.ways import CHOSEN, DTYPES, NAMES

FORMAT: Final = "trilemma calibration"
VERSION: Final = 1
TILES: Final = "x86-64-v4-amx"


@cache
def instruction_set() -> str:
    """Returns the instruction set that our kernels run on here; "none" where they were not built."""
    try:
        return str(import_module("trilemma._C").cpu_isa())
    except ImportError:
        return "none"


def level() -> str:
    """Returns the level of this machine: its instruction set, told apart by the tile units that PyTorch uses."""
    found = instruction_set()
    return TILES if found == "x86-64-v4-bf16" and processor.has_tiles() else found


@dataclass(frozen=True)
class Machine:
    """All that a measurement holds for.

    Attributes:
        cpu: the model.
        level: of the instruction set.
        torch: the version.
        threads: of one operator.
    """

    cpu: str
    level: str
    torch: str
    threads: int

    @classmethod
    def here(cls) -> Machine:
        """Returns this machine as it is set now."""
        return cls(processor.model_name(), level(), str(torch.__version__), torch.get_num_threads())

    @property
    def file(self) -> Path:
        """The file that its calibration is kept in."""
        words = (self.cpu, self.level, f"torch {self.torch}", f"{self.threads} threads")
        return cache_folder() / "calibration" / f"{re.sub(r'[^A-Za-z0-9.+]+', '-', ' '.join(words))}.json"


@dataclass(frozen=True)
class Cell:
    """One measured call of an operator.

    Attributes:
        op: the operator.
        dtype, layout: of the call.
        sizes: as `CHOSEN` names them.
        ratio: how many times as long PyTorch's way takes as the native kernel.
        way: the one to take: "native" or "pytorch".
    """

    op: str
    dtype: str
    layout: str
    sizes: tuple[int, int]
    ratio: float
    way: str

    def __post_init__(self) -> None:
        chosen = CHOSEN.get(self.op)
        fits = (
            chosen is not None
            and self.layout in chosen.layouts
            and self.dtype in DTYPES
            and self.way in NAMES
            and len(self.sizes) == 2
            and all(type(size) is int and 0 < size < 1 << 62 for size in self.sizes)
            and isinstance(self.ratio, float | int)
        )
        if not fits:
            raise ValueError(f"no cell is {self}")


@dataclass(frozen=True)
class Record:
    """The cells that were measured on one machine."""

    machine: Machine
    cells: tuple[Cell, ...]

    def text(self) -> str:
        """Returns the record in JSON, a cell a line."""
        head = {"format": FORMAT, "version": VERSION, "machine": asdict(self.machine)}
        lines = ",\n".join(f"    {json.dumps(asdict(cell))}" for cell in self.cells)
        return f'{json.dumps(head, indent=2)[:-2]},\n  "cells": [\n{lines}\n  ]\n}}\n'

    @classmethod
    def read(cls, path: Path) -> Record:
        """Reads a record.

        Raises:
            DataError: for a file that cannot be read or holds something else.
        """
        cure = "make it anew with trilemma calibrate"
        try:
            found: Any = json.loads(read_text(path))
        except OSError as error:
            raise DataError(
                f"cannot read the calibration {path}: {error.strerror or error}; {cure}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"the calibration {path} is not JSON; {cure}") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DataError(f"{path} is no calibration; {cure}")
        if found.get("version") != VERSION:
            version = shown(found.get("version"))
            raise DataError(f"the calibration {path} has version {version}, not {VERSION}; {cure}")
        try:
            machine = Machine(**found["machine"])
            cells = tuple(Cell(**{**cell, "sizes": tuple(cell["sizes"])}) for cell in found["cells"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the calibration {path} is damaged: {error}; {cure}") from error
        return cls(machine, cells)


@cache
def shipped(name: str) -> Record | None:
    """Returns the record that comes with the package for a level; None where there is none."""
    path = Path(__file__).with_name(f"{name}.json")
    return Record.read(path) if path.is_file() else None
