"""Reading back what made a file of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from trilemma.errors import DataError
from trilemma.output.folder import RECORD
from trilemma.output.picture import METADATA_KEY


def provenance(path: str | Path) -> dict[str, Any]:
    """The provenance in a PNG, an .npz, or a folder of samples.

    Raises:
        DataError: for a file that holds none.
    """
    path = Path(path)
    try:
        return cast(dict[str, Any], json.loads(_text(path)))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} holds no provenance ({error}); give a file that trilemma sample wrote"
        ) from error


def _text(path: Path) -> str:
    if path.is_dir():
        return (path / RECORD).read_text(encoding="utf-8")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return str(archive["provenance"])
    with Image.open(path) as picture:
        return str(picture.info[METADATA_KEY])
