"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

from trilemma.errors import UsageError, shown


def user_path(path: str | Path) -> Path:
    """Returns a path with ~ and ~name as the home folders they mean.

    Raises:
        UsageError: for the home of a user whom this machine does not know, or a path that no file system has.
    """
    if "\0" in str(path):
        raise UsageError(f"path {shown(str(path))} holds a null character; give another")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise UsageError(f"path {shown(str(path))}: there is no home folder {home}; give another") from None
