"""How samples are gathered into batches of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DETERMINISTIC_BATCH = 64


@dataclass(frozen=True)
class Chunk:
    """One batch of the network.

    Attributes:
        indices: sample index of each row of the batch [B], int64.
        rows: the rows that are asked for [b]; the others only fill the batch up.
        positions: place of each of these in the whole request [b].
    """

    indices: Tensor
    rows: Tensor
    positions: Tensor

    @property
    def full(self) -> bool:
        """Whether every row is asked for, in order."""
        return torch.equal(self.rows, torch.arange(len(self.indices)))


def chunked(indices: Sequence[int], batch_size: int, deterministic: bool) -> list[Chunk]:
    """Splits the samples `indices` into batches of at most `batch_size`.

    Deterministic: every batch has 64 rows and sample i sits in row i mod 64 of the one for i // 64, so that
    the network's kernels see a sample in the same place of the same shape whoever its neighbours are.
    """
    if not deterministic:
        return [
            Chunk(
                indices=torch.tensor(indices[start : start + batch_size], dtype=torch.int64),
                rows=torch.arange(len(indices[start : start + batch_size])),
                positions=torch.arange(start, min(start + batch_size, len(indices))),
            )
            for start in range(0, len(indices), batch_size)
        ]
    blocks: dict[int, list[int]] = {}
    for position, index in enumerate(indices):
        blocks.setdefault(index // DETERMINISTIC_BATCH, []).append(position)
    chunks = []
    for positions in blocks.values():
        wanted = torch.tensor([indices[position] for position in positions], dtype=torch.int64)
        rows = wanted % DETERMINISTIC_BATCH
        filled = wanted[:1].repeat(DETERMINISTIC_BATCH)
        filled[rows] = wanted
        chunks.append(Chunk(filled, rows, torch.tensor(positions)))
    return chunks
