"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trilemma.errors import OutputError
from trilemma.files.partials import hold, partial_name, remove_stale


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write into that takes the place of `path` once it is complete and on the disk.

    Until then it has another, hidden name beside `path`; where anything fails, the disk included, it is removed and
    `path` stays what it was.

    Raises:
        OutputError: where the disk refuses.
    """
    # A link goes on pointing to the same file.
    target = path.resolve()
    partial = partial_name(target)
    with telling(path):
        remove_stale(target)
        file = partial.open("wb")
        hold(file.fileno())
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            partial.replace(target)
        except BaseException:
            discard(file, partial)
            raise
        sync_folder(target.parent)


def discard(file: BinaryIO, path: Path) -> None:
    """Closes and removes a file that came to nothing."""
    with contextlib.suppress(OSError):
        # Closing tries to write the rest, which a full disk refuses again.
        file.close()
    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the disk has the content of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last; a file system that cannot do so is left to its own ways."""
    with contextlib.suppress(OSError):
        sync(folder)


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Returns the error that says why `path` could not be written."""
    return OutputError(f"cannot write {path}: {error.strerror or error}; free space or choose another place")
