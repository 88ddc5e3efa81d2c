"""Decoding of large codes tile by tile, which bounds memory by the size of a tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tiled(decode: Callable[[Tensor], Tensor], code: Tensor, tile: int, overlap: int) -> Tensor:
    """Returns the images of codes [B, c, h, w], decoded one code and one tile of tile×tile places at a time.

        x = Σ_k w_k decode(c_k) / Σ_k w_k,   w_k rising linearly from 0 to 1 over the overlap with its neighbours

    A pixel that one tile alone covers is that of the whole decoding, where the overlap is at least the number of places
    that the decoder looks around; in the overlaps tiles are blended.

    Args:
        decode: maps codes [1, c, m, n] to images [1, C, f m, f n].
        code: [B, c, h, w].
        tile: side of a tile, in places of the code; at least 1.
        overlap: places that neighbours share at least; from 0 to below `tile`.
    """
    images: list[Tensor] = []
    for entry in code.unbind():
        total = weights = None
        for top in _starts(code.shape[2], tile, overlap):
            for left in _starts(code.shape[3], tile, overlap):
                part = decode(entry[None, :, top : top + tile, left : left + tile])
                height, width = min(tile, code.shape[2]), min(tile, code.shape[3])
                f = part.shape[2] // height
                if total is None or weights is None:
                    size = f * code.shape[2], f * code.shape[3]
                    total, weights = part.new_zeros(1, part.shape[1], *size), part.new_zeros(1, 1, *size)
                rows = _ramp(top, height, code.shape[2], overlap, f, part)
                columns = _ramp(left, width, code.shape[3], overlap, f, part)
                weight = rows[:, None] * columns
                place = slice(f * top, f * (top + height)), slice(f * left, f * (left + width))
                total[:, :, *place] += weight * part
                weights[:, :, *place] += weight
        if total is not None and weights is not None:
            images.append(total / weights)
    return torch.cat(images) if images else decode(code)


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """The first places of the tiles along a side; the last tile ends with it."""
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _ramp(start: int, length: int, side: int, overlap: int, f: int, like: Tensor) -> Tensor:
    """Weights [f length] along a side: 1, but rising from 0 at an end that another tile goes on from."""
    place = torch.arange(f * length, device=like.device, dtype=like.dtype) + 0.5
    weight = torch.ones_like(place)
    if overlap and start:
        weight = torch.minimum(weight, place / (f * overlap))
    if overlap and start + length < side:
        weight = torch.minimum(weight, place.flip(0) / (f * overlap))
    return weight
