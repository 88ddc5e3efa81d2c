"""Philox 4x32-10, the counter-based generator under every random number of the engine, in torch integers.

A counter-based generator is a keyed bijection: number i of a stream is a function of (key, i) alone, so it can be
made in any order, on any device, by any number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF

Word = Tensor | int


def philox(
    counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the four 32-bit words of Philox 4x32-10 at a counter under a key.

    Args:
        counter: four 32-bit words, each an int or an int64 tensor; they broadcast against each other.
        key: two 32-bit words, likewise.

    Returns:
        Four int64 tensors of the broadcast shape, values in [0, 2^32).

    Reference: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    """
    device = next((word.device for word in (*counter, *key) if isinstance(word, Tensor)), None)
    c0, c1, c2, c3, k0, k1 = torch.broadcast_tensors(
        *(torch.as_tensor(word, dtype=torch.int64, device=device) for word in (*counter, *key))
    )
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of a·b, from two 32x16-bit products: a whole one would overflow int64."""
    low_half, high_half = a * (b & 0xFFFF), a * (b >> 16)
    low = (low_half + ((high_half & 0xFFFF) << 16)) & _MASK
    high = (high_half + (low_half >> 16)) >> 16
    return high, low
