"""What a build is for: the torch, and whether it has native libraries."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from pathlib import Path


def native_choice() -> str:
    """Returns what TRILEMMA_NATIVE asks for: "auto", "0" or "1"."""
    choice = os.environ.get("TRILEMMA_NATIVE") or "auto"
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"TRILEMMA_NATIVE={choice} is unknown; choose auto, 0 or 1")
    return choice


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
