"""Keys of random draws: each draw is a pure function of the seed, the step and the stream."""

from __future__ import annotations

from typing import Final

import torch

# A stream and another of the same purpose, such as those of a step's updates, are so many apart.
STREAMS: Final = 1000


def step_key(seed: int, step: int, stream: int, rank: int = 0) -> int:
    """Returns the integer in [0, 2⁶³) that stands for (seed, step, stream, rank)."""
    return (((seed * 1_000_003 + stream) * 1_000_003 + rank) * 1_000_003 + step) % (1 << 63)


def step_generator(seed: int, step: int, stream: int, rank: int = 0) -> torch.Generator:
    """Returns a CPU generator keyed by (seed, step, stream, rank): no random state has to be carried along."""
    return torch.Generator().manual_seed(step_key(seed, step, stream, rank))
