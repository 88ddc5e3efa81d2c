"""Where data sets lie that are named without a full path."""

from __future__ import annotations

import os
from pathlib import Path

from trilemma.errors import DataError

_SHARED = Path("..", "shared", "data")
_CHECKOUT = Path(__file__).resolve().parents[2]


def find_data(name: str) -> Path:
    """The path of `name` in the data folder.

    The data folder is $TRILEMMA_DATA; where that is not set, ../shared/data as seen from the working directory
    or from the source checkout.

    Raises:
        DataError: where there is none, with the places looked at.
    """
    places = [folder / name for folder in _folders()]
    for place in places:
        if place.exists():
            return place
    looked = " or ".join(str(place) for place in places)
    raise DataError(f"no data at {looked}; set TRILEMMA_DATA to the folder that holds {name}, or give root=")


def _folders() -> list[Path]:
    if "TRILEMMA_DATA" in os.environ:
        return [Path(os.environ["TRILEMMA_DATA"])]
    checkout = [_CHECKOUT / _SHARED] if (_CHECKOUT / "pyproject.toml").is_file() else []
    return [_SHARED, *(place.resolve() for place in checkout)]
