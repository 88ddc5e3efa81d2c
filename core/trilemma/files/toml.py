"""Tables in a TOML file that somebody else wrote."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from trilemma.files.regular import read_text


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables in a regular file of at most 1 MiB, with or without a byte-order mark.

    Raises:
        OSError: for a file that cannot be read; `strerror` says why.
        ValueError: for a file that is no TOML in UTF-8.
    """
    try:
        return tomllib.loads(read_text(path).replace("\r\n", "\n"))
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
