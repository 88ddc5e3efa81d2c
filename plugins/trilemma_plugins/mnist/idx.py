"""The IDX file format of MNIST, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from trilemma.errors import DataError


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor in an IDX file: 0 0 8 rank, rank big-endian sizes, the bytes.

    Raises:
        DataError: for a file that cannot be read, is no IDX file of bytes, or is truncated or too long.
    """
    try:
        blob = path.read_bytes()
        if blob[:2] == b"\x1f\x8b":
            blob = gzip.decompress(blob)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; restore the file") from error
    if len(blob) < 4 or blob[:3] != b"\x00\x00\x08":
        raise DataError(
            f"{path} is no IDX file of bytes; expected it to begin with 00 00 08, restore the file"
        )
    rank = blob[3]
    start = 4 + 4 * rank
    if len(blob) < start:
        raise DataError(f"{path} is truncated inside its header; restore the file")
    sizes = struct.unpack(f">{rank}I", blob[4:start])
    if len(blob) - start != math.prod(sizes):
        raise DataError(
            f"{path} holds {len(blob) - start} bytes of data, its header promises {math.prod(sizes)}; restore the file"
        )
    return (
        torch.frombuffer(bytearray(blob), dtype=torch.uint8, offset=start).view(sizes)
        if math.prod(sizes)
        else (torch.empty(sizes, dtype=torch.uint8))
    )
