"""Reading back what made an output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trilemma.errors import DataError
from trilemma.files.arrays import read_array
from trilemma.files.picture import FILE_LIMIT, picture_text
from trilemma.files.regular import read_regular, read_text
from trilemma.output import provenance_json
from trilemma.output.provenance_json import LIMIT


def provenance(path: str | Path) -> dict[str, Any]:
    """Reads the provenance of the samples in a picture, an archive or a folder that Trilemma wrote.

    Raises:
        DataError: for a path that is missing, unreadable, or carries no provenance.
    """
    path = Path(path)
    try:
        found = json.loads(_text(path))
    except Exception as error:
        # A damaged file can make Pillow and NumPy raise nearly anything.
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} holds no provenance ({type(error).__name__}: {reason}); give what trilemma sample wrote"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no provenance but {found!r}; give what trilemma sample wrote")
    return found


def _text(path: Path) -> str:
    if path.is_dir():
        return read_text(path / provenance_json.FILE, LIMIT)
    if path.suffix.lower() == ".npz":
        return str(read_array(path, "provenance", (), "U"))
    return picture_text(read_regular(path, FILE_LIMIT), provenance_json.KEY)
