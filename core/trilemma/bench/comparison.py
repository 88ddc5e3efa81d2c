"""An earlier run beside this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trilemma.errors import UsageError

Key = tuple[str, ...]


def key(record: Mapping[str, Any]) -> Key:
    """What makes two records one cell."""
    return tuple(str(record[name]) for name in ("op", "shape", "dtype", "variant", "cold"))


def earlier_runs(path: Path) -> dict[Key, dict[str, Any]]:
    """The records in a file of JSON lines, the last of each cell.

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
    """How much faster than earlier, each in units of its own run's copy: machines and their moods cancel."""
    return float(record["of_copy"] / earlier["of_copy"])
