"""The IDX file format of MNIST, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from trilemma.errors import DataError
from trilemma.files.regular import open_regular, size_of

LIMIT = 1 << 30
_MAGIC = b"\x00\x00\x08"
# The most bytes that one byte of gzip can stand for.
_RATIO = 1032


def read_idx(path: Path) -> Tensor:
    """Returns the uint8 tensor in an IDX file: 0 0 8 rank, rank big-endian sizes, the bytes.

    Raises:
        DataError: for a file that cannot be read, is no IDX file of bytes, is truncated or too long, or promises more
            than 2³⁰ bytes; no more is inflated than the header promises.
    """
    try:
        with open_regular(path) as file:
            return _read(path, file)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}; restore the file") from error


def _read(path: Path, file: BinaryIO) -> Tensor:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
    sizes = _sizes(path, stream)
    promised, header = math.prod(sizes), 4 + 4 * len(sizes)
    there = size_of(file)
    if not packed and there - header != promised:
        raise DataError(
            f"{path} holds {there - header} bytes of data, its header promises {promised}; restore the file"
        )
    if packed and promised > _RATIO * there:
        raise DataError(
            f"{path} has {there} bytes, which cannot hold the {promised} its header promises; restore the file"
        )
    if promised > LIMIT:
        raise DataError(f"{path} promises {promised:,} bytes, at most {LIMIT:,} are read; split the file")
    data = torch.empty(promised, dtype=torch.uint8)
    found = _fill(stream, memoryview(data.numpy()))
    if found < promised or stream.read(1):
        more = "more" if found == promised else found
        raise DataError(
            f"{path} holds {more} bytes of data, its header promises {promised}; restore the file"
        )
    return data.view(sizes)


def _sizes(path: Path, stream: BinaryIO) -> tuple[int, ...]:
    begins = stream.read(4)
    if len(begins) < 4 or begins[:3] != _MAGIC:
        raise DataError(
            f"{path} is no IDX file of bytes; expected it to begin with 00 00 08, restore the file"
        )
    rank = begins[3]
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(f"{path} is truncated inside its header; restore the file")
    return struct.unpack(f">{rank}I", sizes)


def _fill(stream: BinaryIO, place: memoryview) -> int:
    """Fills the place and returns the bytes that came before it, or the stream, was at its end."""
    found = 0
    while found < len(place):
        count = cast(int, stream.readinto(place[found:]))  # type: ignore[attr-defined]
        if not count:
            break
        found += count
    return found
