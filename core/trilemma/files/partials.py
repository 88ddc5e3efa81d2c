"""Names of files and folders that are still being written, and the removal of those that a kill left behind."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"


def partial_name(path: Path) -> Path:
    """Returns the hidden name under which this thread of this process writes what will be `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}{PARTIAL}")


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Marks a file or folder as being written for as long as the block runs, or the process lives."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        hold(descriptor)
        yield
    finally:
        os.close(descriptor)


def hold(descriptor: int) -> None:
    """Marks an open file as being written until it is closed; without locks in its file system, does nothing."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_stale(path: Path) -> None:
    """Removes the partial files of `path` whose writers no longer live.

    A partial file stays where its process is alive, which is known by its number on this machine and by its lock on
    any. It also stays where the file system has no locks.
    """
    pattern = f".{glob.escape(path.name)}.*{PARTIAL}"
    for left in path.parent.glob(pattern):
        if _is_stale(left):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_stale(left: Path) -> bool:
    process, _, _ = left.name.removesuffix(PARTIAL).rpartition(".")
    number = process.rpartition(".")[2]
    if not number.isdecimal() or _lives(int(number)):
        return False
    try:
        descriptor = os.open(left, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
