"""Regular files alone, since a pipe may never answer and a device may have no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

# A card, a recipe or a record is a page of text.
TEXT_LIMIT = 1 << 20

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: str | Path, limit: int | None = None) -> BinaryIO:
    """Returns a regular file, opened for reading without ever waiting for it.

    Args:
        path: of the file; links are followed.
        limit: the most bytes that the file may have; None for any number.

    Raises:
        OSError: for a path that is missing, no regular file, or larger; `strerror` says so.
    """
    # The check comes first, since opening a device may have effects.
    _check(path, os.stat(path), limit)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _check(path, os.fstat(descriptor), limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, limit: int) -> bytes:
    """Returns the content of a regular file of at most `limit` bytes; see `open_regular`."""
    with open_regular(path, limit) as file:
        size = size_of(file)
        blob = file.read(size + 1)
    if len(blob) > size:
        raise OSError(errno.EINVAL, "it grows while it is read", str(path))
    return blob


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """Returns the text of a regular file in UTF-8, with or without a byte-order mark; see `open_regular`.

    Raises:
        UnicodeDecodeError: for a file that is not in UTF-8.
    """
    return read_regular(path, limit).decode("utf-8-sig")


def size_of(file: BinaryIO) -> int:
    """Returns the number of bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def file_inside(folder: Path, name: str) -> Path:
    """Returns the path of a file that a card names: a plain name, which leads nowhere but into the card's folder.

    Raises:
        OSError: for a name with a folder in it, or a link that leads out of the folder; `strerror` says so.
    """
    plain = name not in ("", ".", "..") and not any(mark in name for mark in ("/", "\\", "\0"))
    if not plain:
        raise OSError(errno.EINVAL, f"{name!r} is not the plain name of a file beside it", str(folder))
    path = folder / name
    home = os.path.realpath(folder)
    if os.path.commonpath((home, os.path.realpath(path))) != home:
        raise OSError(errno.EINVAL, "it is a link out of its folder", str(path))
    return path


def _check(path: str | Path, found: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((word for test, word in _KINDS if test(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    if limit is not None and found.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, at most {limit:,} are read", str(path))
