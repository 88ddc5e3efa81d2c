"""One array of a NumPy archive, checked by its header before it is inflated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from trilemma.files.regular import open_regular

ARRAY_LIMIT = 1 << 30


def read_array(path: Path, name: str, shape: Sequence[int | None], kinds: str = "fiub") -> npt.NDArray[Any]:
    """Returns an array of an .npz, of a shape in which None stands for any size and of one of NumPy's `kinds` of dtype.

    Raises:
        KeyError: where there is none of this name; its argument lists the names there are.
        ValueError: for another shape or dtype, or more than 2³⁰ bytes.
        Exception: whatever zipfile and NumPy raise for a damaged archive.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise KeyError([entry.removesuffix(".npy") for entry in archive.namelist()])
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is packed in a way that NumPy never writes")
        with archive.open(member) as stream:
            found, fortran, dtype = _header(stream)
            fits = len(found) == len(shape) and all(
                wanted in (None, size) for size, wanted in zip(found, shape, strict=True)
            )
            if not fits:
                expected = ", ".join("n" if size is None else str(size) for size in shape)
                raise ValueError(f"its array {name} is of shape {found}, expected ({expected})")
            if dtype.kind not in kinds:
                raise ValueError(f"its array {name} holds {dtype}, which is not expected there")
            length = math.prod(found) * dtype.itemsize
            if length > ARRAY_LIMIT:
                raise ValueError(f"its array {name} has {length:,} bytes, at most {ARRAY_LIMIT:,} are read")
            if not 0 <= member.file_size - length < 1 << 16:
                raise ValueError(f"its array {name} has {member.file_size:,} bytes for {length:,} of numbers")
            blob = stream.read(length)
            if len(blob) != length or stream.read(1):
                raise ValueError(f"its array {name} is cut off")
    array = np.frombuffer(bytearray(blob), dtype=dtype)
    return array.reshape(found, order="F" if fortran else "C")


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"its arrays are of version {version}, expected 1.0 or 2.0")
    return read(stream)
