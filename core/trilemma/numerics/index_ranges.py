"""Sample indices as ranges, however many there are: none is written down one by one."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import overload

INDEX_LIMIT = 2**56


class IndexRanges(Sequence[int]):
    """Different integers of at least 0 in a given order, held as runs of consecutive ones.

    Args:
        runs: (first, last + 1) of each run, in order; they do not overlap.
    """

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        joined: list[tuple[int, int]] = []
        for start, stop in runs:
            if joined and joined[-1][1] == start:
                joined[-1] = joined[-1][0], stop
            elif start < stop:
                joined.append((start, stop))
        self.runs = tuple(joined)
        self._ends = list(accumulate(stop - start for start, stop in joined))
        self._rising = sorted(joined)

    @classmethod
    def of(cls, indices: Sequence[int]) -> IndexRanges | None:
        """Returns indices that are held as ranges already, None for others."""
        if isinstance(indices, range) and indices.step == 1:
            return cls([(indices.start, indices.stop)])
        return indices if isinstance(indices, IndexRanges) else None

    @property
    def overlap(self) -> bool:
        """True where some index comes twice."""
        return any(
            first[1] > second[0] for first, second in zip(self._rising, self._rising[1:], strict=False)
        )

    def without(self, indices: Iterable[int]) -> IndexRanges:
        """Returns these indices without some, in their order."""
        taken = sorted(indices)
        return IndexRanges(
            chain.from_iterable(
                _around(
                    start, stop, taken[bisect.bisect_left(taken, start) : bisect.bisect_left(taken, stop)]
                )
                for start, stop in self.runs
            )
        )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> list[int]: ...

    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            places = range(len(self))[place]
            return (
                list(self._from(places.start, places.stop)) if places.step == 1 else [self[p] for p in places]
            )
        at = range(len(self))[place]
        run = bisect.bisect_right(self._ends, at)
        return self.runs[run][1] - (self._ends[run] - at)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(range(start, stop) for start, stop in self.runs)

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        run = bisect.bisect_right(self._rising, (index, INDEX_LIMIT + 1)) - 1
        return run >= 0 and index < self._rising[run][1]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, IndexRanges):
            return self.runs == other.runs
        if isinstance(other, Sequence):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IndexRanges({list(self.runs)})"

    def _from(self, first: int, last: int) -> Iterator[int]:
        run = bisect.bisect_right(self._ends, first)
        while first < last:
            stop = self.runs[run][1]
            begin = stop - (self._ends[run] - first)
            end = min(stop, begin + last - first)
            yield from range(begin, end)
            first, run = first + end - begin, run + 1


def _around(start: int, stop: int, taken: Sequence[int]) -> Iterator[tuple[int, int]]:
    for index in taken:
        yield start, index
        start = index + 1
    yield start, stop
