"""Sample indices as text: 0-63,100 means 0, 1, …, 63 and 100."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trilemma.errors import UsageError

_PART = re.compile(r"(\d+)(?:-(\d+))?")


def parse_indices(text: str) -> list[int]:
    """The indices that a text means, in its order.

    Raises:
        UsageError: for a text of another form, or an index that comes twice.
    """
    found: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UsageError(
                f"indices {text!r}: {part.strip()!r} is no index or range; write for example 0-63,100"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(
                f"indices {text!r}: the range {part.strip()} is empty; write the smaller index first"
            )
        found.extend(range(first, last + 1))
    if len(set(found)) < len(found):
        raise UsageError(f"indices {text!r}: some index comes twice; give each once")
    return found


def format_indices(indices: Iterable[int]) -> str:
    """The shortest text that `parse_indices` reads as these indices, in their order."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] + 1 == index:
            runs[-1] = runs[-1][0], index
        else:
            runs.append((index, index))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
