"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from trilemma.errors import ModelError

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder while the block runs, or the process lives.

    The lock is the operating system's (flock) on `folder/.lock`, so that a killed run leaves none behind. On a network
    file system it holds for other machines too where that file system passes flock on, as NFS does. Where there are no
    locks, no run is kept out.

    Raises:
        ModelError: where another run holds it, with its process and machine; OSError where the disk refuses.
    """
    path = folder / NAME
    with contextlib.ExitStack() as stack:
        descriptor = _opened(path)
        stack.callback(os.close, descriptor)
        stack.callback(path.unlink, missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield


def _opened(path: Path) -> int:
    """The descriptor of the lock file, held: of the file that has the name, not of one that was just removed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ModelError(
                f"{path.parent} is being trained in by {holder}; wait for it, stop it, or choose another --out"
            ) from None
        except OSError:
            return descriptor
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(found['pid'])} on {str(found['host'])[:60]}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"
