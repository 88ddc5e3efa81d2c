"""The folder in which data sets are looked for that are named without a full path."""

from __future__ import annotations

import os
from pathlib import Path

from trilemma.errors import DataError


def data_folder() -> Path:
    """Returns $TRILEMMA_DATA, or the folder `data` of the working directory where that is not set."""
    return Path(os.environ.get("TRILEMMA_DATA") or "data")


def find_data(name: str, files: str | None = None) -> Path:
    """Returns the path of `name` in the data folder.

    Args:
        name: of a file or folder.
        files: the files to put there and where they come from, for the message; the name itself by default.

    Raises:
        DataError: where there is none; it names the place and the files that belong there.
    """
    place = data_folder() / name
    if place.exists():
        return place
    where = place if files is None else f"{place}{os.sep}"
    raise DataError(
        f"no data at {place}; put {files or name} at {where}, or set TRILEMMA_DATA to the folder that holds {name}"
    )
