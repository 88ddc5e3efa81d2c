"""A digest of image files that is cheap enough to take at every start of a run."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from trilemma.files.regular import open_regular

_WHOLE = 1 << 30
_END = 1 << 16


def files_fingerprint(root: Path, names: Sequence[str]) -> str:
    """Returns a digest of the names, sizes and contents of the files of a folder or a zip.

    Of a zip it takes the CRC-32 that its directory holds; of a folder the contents, or, where they are more than 1 GiB
    together, the first and the last 64 KiB of every file.
    """
    digest = hashlib.sha256()
    if not root.is_dir():
        with zipfile.ZipFile(root) as archive:
            for member in archive.infolist():
                digest.update(
                    f"{member.filename}\0{member.file_size}\0{member.CRC}\n".encode("utf-8", "replace")
                )
        return digest.hexdigest()
    sizes = [(root / name).stat().st_size for name in names]
    whole = sum(sizes) <= _WHOLE
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        with open_regular(root / name) as file:
            if whole or size <= 2 * _END:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(file.read(_END))
                file.seek(-_END, os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()
