"""Batches of the network: samples are gathered into them one after the other, as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from trilemma.numerics.index_ranges import IndexRanges

DETERMINISTIC_BATCH = 64


@dataclass(frozen=True)
class Chunk:
    """One batch of the network.

    Attributes:
        indices: sample index of each row of the batch [B], int64.
        rows: the rows that are asked for [b]; the others only fill the batch up.
        positions: place of each of these in the whole request [b].
        full: whether every row is asked for, in order.
    """

    indices: Tensor
    rows: Tensor
    positions: Tensor
    full: bool


class Chunks:
    """The samples `indices` in batches of at most `batch_size`; each is made when the iteration comes to it.

    Deterministic: every batch has 64 rows and sample i sits in row i mod 64 of the one for i // 64, so that
    the network's kernels see a sample in the same place of the same shape, whatever its neighbours are.

    Args:
        indices: which samples.
        batch_size: rows of a batch at most.
        deterministic: whether batches have 64 rows whatever `batch_size` says.
    """

    def __init__(self, indices: Sequence[int], batch_size: int, deterministic: bool) -> None:
        self._indices, self._batch = indices, batch_size
        self._blocks = _blocks(indices) if deterministic else None

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch) if self._blocks is None else len(self._blocks)

    def __iter__(self) -> Iterator[Chunk]:
        return map(_block_chunk, self._blocks) if self._blocks is not None else self._in_order()

    def of_size(self, rows: int) -> int:
        """Returns how many of the batches have this number of rows."""
        if self._blocks is not None:
            return len(self) if rows == DETERMINISTIC_BATCH else 0
        whole, rest = divmod(len(self._indices), self._batch)
        return (whole if rows == self._batch else 0) + int(rows == rest > 0)

    def _in_order(self) -> Iterator[Chunk]:
        for start in range(0, len(self._indices), self._batch):
            stop = min(start + self._batch, len(self._indices))
            indices = torch.tensor(self._indices[start:stop], dtype=torch.int64)
            yield Chunk(indices, torch.arange(stop - start), torch.arange(start, stop), full=True)


# (indices, positions) of the samples in one block of 64.
_Block = tuple[Sequence[int], Sequence[int]]


def _blocks(indices: Sequence[int]) -> _ListedBlocks | _RangedBlocks:
    ranges = IndexRanges.of(indices)
    return _ListedBlocks(indices) if ranges is None else _RangedBlocks(ranges)


class _ListedBlocks:
    """Blocks of indices that are listed, in the order in which they first come."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._indices = indices
        self._positions: dict[int, list[int]] = {}
        for position, index in enumerate(indices):
            self._positions.setdefault(index // DETERMINISTIC_BATCH, []).append(position)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[_Block]:
        for positions in self._positions.values():
            yield [self._indices[position] for position in positions], positions


class _RangedBlocks:
    """Blocks of indices that are ranges, rising."""

    def __init__(self, ranges: IndexRanges) -> None:
        self._runs, position = [], 0
        for start, stop in ranges.runs:
            self._runs.append((start, stop, position))
            position += stop - start
        self._runs.sort()

    def __len__(self) -> int:
        own = sum(_block(stop - 1) - _block(start) + 1 for start, stop, _ in self._runs)
        shared = sum(_block(a[1] - 1) == _block(b[0]) for a, b in pairwise(self._runs))
        return own - shared

    def __iter__(self) -> Iterator[_Block]:
        for _, parts in groupby(self._parts(), key=lambda part: _block(part[0][0])):
            indices: list[int] = []
            positions: list[int] = []
            for some, places in parts:
                indices += some
                positions += places
            yield indices, positions

    def _parts(self) -> Iterator[tuple[range, range]]:
        """Indices and positions of the parts of runs that lie in one block each."""
        for start, stop, position in self._runs:
            first = start
            while first < stop:
                last = min(stop, (_block(first) + 1) * DETERMINISTIC_BATCH)
                yield range(first, last), range(position + first - start, position + last - start)
                first = last


def _block(index: int) -> int:
    return index // DETERMINISTIC_BATCH


def _block_chunk(block: _Block) -> Chunk:
    wanted, positions = (torch.tensor(entries, dtype=torch.int64) for entries in block)
    rows = wanted % DETERMINISTIC_BATCH
    filled = wanted[:1].repeat(DETERMINISTIC_BATCH)
    filled[rows] = wanted
    return Chunk(filled, rows, positions, torch.equal(rows, torch.arange(DETERMINISTIC_BATCH)))
