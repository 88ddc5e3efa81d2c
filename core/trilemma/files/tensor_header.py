"""The header of a safetensors file: names, shapes and dtypes of its tensors, without their numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

from trilemma.files.regular import size_of

_LIMIT = 1 << 24
_BITS = {
    "BOOL": 8,
    **{f"{sign}{bits}": bits for sign in "IU" for bits in (8, 16, 32, 64)},
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
}


@dataclass(frozen=True)
class Header:
    """The shapes of the tensors in a file, by name."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def numbers(self) -> int:
        """The count of numbers in all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_header(file: BinaryIO) -> Header:
    """Returns the shapes of the tensors that a safetensors file declares.

    Args:
        file: regular and open for reading.

    Raises:
        ValueError: for a malformed header, or one of another size than the file has.
    """
    size = size_of(file)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LIMIT):
        raise ValueError("it has no header")
    try:
        entries: Any = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        shapes = {name: _shape(entry) for name, entry in entries.items()}
        bits = sum(math.prod(shapes[name]) * _BITS[entry["dtype"]] for name, entry in entries.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("its header is damaged") from error
    if 8 + length + bits // 8 != size:
        raise ValueError(f"its header promises {8 + length + bits // 8:,} bytes, it has {size:,}")
    return Header(shapes)


def _shape(entry: Any) -> tuple[int, ...]:
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(shape)
    return shape
