"""Rows of metadata.jsonl and metadata.csv: one for each image, in the convention of Hugging Face's ImageFolder."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from trilemma.errors import DataError, shown
from trilemma_plugins.images.files import Files, is_image
from trilemma_plugins.images.unreadable import Unreadable, first_of

NAMES = ("metadata.jsonl", "metadata.csv")
LIMIT = 1 << 26
FILE = "file_name"
# A column with this ending names other images.
ENDING = f"_{FILE}"
# Faults that are collected, and characters of a line: more of either is no metadata.
MOST_FAULTS = 10_000
LONGEST_LINE = 1 << 20

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# The largest number of float32.
_LARGEST = 3.4028234e38
# Stands for a value that no condition has: an object, or a list of anything but texts.
OTHER = object()


@dataclass
class Row:
    """One row.

    Attributes:
        place: file and line.
        name: of the image, from the root on.
        values: of the other columns: numbers, booleans, texts, lists of texts, names of images from the root on, OTHER;
            None where there is none.
    """

    place: str
    name: str
    values: dict[str, Any]


def metadata_files(names: Iterable[str]) -> list[str]:
    """Returns which of the files of a root are metadata, sorted."""
    return sorted(name for name in names if PurePosixPath(name).name in NAMES)


def read_rows(files: Files, root: Path) -> list[Row]:
    """Returns the rows of all metadata in a folder or zip, sorted by the names of their images.

    Names are relative to the folder of the metadata that they stand in. Every image has a row, but for those that a
    column with the ending `_file_name` names; every row has a value, if only null, in every column.

    Raises:
        Unreadable: naming all rows and images for which that does not hold.
        DataError: for a file that cannot be read, or two of them in one folder.
    """
    there = metadata_files(files.names)
    folders: dict[PurePosixPath, str] = {}
    for name in there:
        if (other := folders.setdefault(PurePosixPath(name).parent, name)) != name:
            raise DataError(f"{root} holds both {name} and {other}; keep one of them")
    reasons: dict[str, str] = {}
    rows: list[Row] = []
    for name in there:
        folder = PurePosixPath(name).parent
        read = _csv if name.endswith(".csv") else _jsonl
        # More rows than files cannot all be right, and would take memory without end.
        most = len(files.names) + MOST_FAULTS - len(rows)
        found = list(islice(read(_text(files, name, root), name, folder, reasons), most))
        if read is _csv:
            _take_numbers(found)
        rows += found
    _check(rows, set(files.names), reasons)
    if reasons:
        least = "at least " if len(reasons) > MOST_FAULTS else ""
        count = "" if len(reasons) == 1 else f"{least}{len(reasons):,} rows and images: "
        raise Unreadable(f"the metadata do not fit {root}: {count}{first_of(reasons)}; correct them", reasons)
    if not rows:
        raise DataError(f"{there[0]} in {root} has no rows; give each image one, or remove the file")
    return sorted(rows, key=lambda row: PurePosixPath(row.name).parts)


def _text(files: Files, name: str, root: Path) -> str:
    try:
        return files.read(name, LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} in {root} is not in UTF-8; save it so") from error
    except Exception as error:
        # A damaged zip can make zipfile raise nearly anything.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {name} in {root}: {reason}; restore or remove it") from error


def _jsonl(text: str, name: str, folder: PurePosixPath, reasons: dict[str, str]) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if not line.strip():
            continue
        if len(reasons) > MOST_FAULTS:
            return
        place = f"{name}:{number}"
        if len(line) > LONGEST_LINE:
            reasons[place] = f"it has more than {LONGEST_LINE:,} characters"
            continue
        try:
            values = json.loads(line, parse_constant=_no_number)
            # An escape may stand for half of a character.
            json.dumps(values, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            reasons[place] = f"it is no JSON: {_short(error)}"
            continue
        if not isinstance(values, dict):
            reasons[place] = "it is no JSON object"
            continue
        if (row := _row(place, values, folder, reasons)) is not None:
            yield row


def _csv(text: str, name: str, folder: PurePosixPath, reasons: dict[str, str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if FILE not in header or len(set(header)) < len(header) or "" in header:
            reasons[f"{name}:1"] = f"it is no header of different names, {FILE} among them"
            return
        for cells in reader:
            if not cells:
                continue
            if len(reasons) > MOST_FAULTS:
                return
            place = f"{name}:{reader.line_num}"
            if len(cells) != len(header):
                reasons[place] = f"it has {len(cells)} cells under {len(header)} names"
                continue
            values = {key: cell or None for key, cell in zip(header, cells, strict=True)}
            if (row := _row(place, values, folder, reasons)) is not None:
                yield row
    except csv.Error as error:
        reasons[f"{name}:{reader.line_num}"] = f"it is no CSV: {_short(error)}"


def _take_numbers(rows: Sequence[Row]) -> None:
    """Makes numbers of the columns of a CSV that hold nothing else."""
    for column in rows[0].values if rows else ():
        cells = [row.values[column] for row in rows if row.values[column] is not None]
        if cells and not column.endswith(ENDING) and all(map(_NUMBER.fullmatch, cells)):
            for row in rows:
                if (cell := row.values[column]) is not None:
                    row.values[column] = int(cell) if _INTEGER.fullmatch(cell) else float(cell)


def _row(place: str, values: dict[str, Any], folder: PurePosixPath, reasons: dict[str, str]) -> Row | None:
    name = _inside(folder, values.pop(FILE, None))
    if name is None:
        reasons[place] = f"its {FILE} is no path into its folder"
        return None
    for column, value in values.items():
        if column.endswith(ENDING):
            values[column] = _inside(folder, value)
        elif isinstance(value, dict) or (isinstance(value, list) and not _are_texts(value)):
            values[column] = OTHER
    return Row(place, name, values)


def _inside(folder: PurePosixPath, given: Any) -> str | None:
    """The path from the root on of a file that a row names; None where it leads out of the row's folder."""
    if not isinstance(given, str) or given.startswith("/"):
        return None
    parts = [part for part in given.split("/") if part not in ("", ".")]
    return str(folder.joinpath(*parts)) if parts and ".." not in parts else None


def _are_texts(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(entry, str) for entry in value)


def _check(rows: Sequence[Row], there: set[str], reasons: dict[str, str]) -> None:
    columns = dict.fromkeys(column for row in rows for column in row.values)
    seen: dict[str, str] = {}
    named: set[str] = set()
    for row in rows:
        others = [value for column, value in row.values.items() if column.endswith(ENDING)]
        named.update(name for name in others if name is not None)
        missing = next((column for column in columns if column not in row.values), None)
        lost = next((name for name in (row.name, *others) if name not in there), row.name)
        wide = next((value for value in row.values.values() if _is_too_wide(value)), None)
        if row.name in seen:
            reasons[row.place] = f"{shown(row.name, 30)} has a row in {seen[row.name]}"
        elif missing is not None:
            reasons[row.place] = f"it has no {shown(missing, 30)}"
        elif lost is None or lost not in there:
            reasons[row.place] = "it names no image" if lost is None else f"no file {shown(lost, 40)}"
        elif not is_image(row.name):
            reasons[row.place] = f"{shown(row.name, 40)} is no image"
        elif wide is not None:
            reasons[row.place] = "it holds a number past those of float32"
        seen.setdefault(row.name, row.place)
    for name in sorted(there):
        if is_image(name) and name not in seen and name not in named:
            reasons[name] = "no row names it"


def _is_too_wide(value: Any) -> bool:
    return isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _short(error: Exception) -> str:
    return str(error)[:40]
