"""The comparison of a run with an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trilemma.errors import UsageError

Key = tuple[str, ...]


def key(record: Mapping[str, Any]) -> Key:
    """Returns the key of a cell: records with equal keys measure the same one."""
    return tuple(str(record[name]) for name in ("op", "shape", "dtype", "variant", "cold"))


def earlier_runs(path: Path) -> dict[Key, dict[str, Any]]:
    """Reads the records in a file of JSON lines, the last of each cell.

    Raises:
        UsageError: for a file that cannot be read or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {key(record): record for record in map(json.loads, filter(None, lines))}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a file that --json wrote") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} holds no records; give a file that --json wrote") from error


def change(record: Mapping[str, Any], earlier: Mapping[str, Any]) -> float:
    """Returns how much faster it is than earlier, each relative to the copy of its own run: the machine cancels."""
    return float(record["of_copy"] / earlier["of_copy"])
