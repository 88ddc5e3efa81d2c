"""The torch that a build is for."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path


def torch_folder() -> Path | None:
    """Returns the folder of the torch to build against; None where there is none.

    One that the building environment imports comes first. In an isolated build that is none, and the torch of the
    environment that is installed into counts, whose packages the isolation hides.
    """
    found = importlib.util.find_spec("torch")
    if found is not None and found.origin:
        return Path(found.origin).parent
    for scheme in ("purelib", "platlib"):
        folder = Path(sysconfig.get_path(scheme)) / "torch"
        if (folder / "version.py").is_file():
            return folder
    return None
