"""Sample indices as text: 0-63,100 means 0, 1, …, 63 and 100."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trilemma.errors import UsageError
from trilemma.numerics.index_ranges import INDEX_LIMIT, IndexRanges

_PART = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


def parse_indices(text: str) -> IndexRanges:
    """Returns the indices that a text means, in its order.

    Raises:
        UsageError: for a text of another form, an index of 2⁵⁶ or more, or one that comes twice.
    """
    runs: list[tuple[int, int]] = []
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
        if last >= INDEX_LIMIT:
            raise UsageError(f"indices {text!r}: {last} is too large; give integers from 0 to 2**56 - 1")
        runs.append((first, last + 1))
    found = IndexRanges(runs)
    if found.overlap:
        raise UsageError(f"indices {text!r}: some index comes twice; give each once")
    return found


def format_indices(indices: Sequence[int]) -> str:
    """Returns the shortest text that `parse_indices` reads as these indices, in their order."""
    ranges = IndexRanges.of(indices) or IndexRanges((index, index + 1) for index in indices)
    return ",".join(str(start) if stop == start + 1 else f"{start}-{stop - 1}" for start, stop in ranges.runs)
