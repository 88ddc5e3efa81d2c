"""What a build is for: the torch, and whether it has native libraries."""

from __future__ import annotations

import importlib.util
import os
import re
import sysconfig
from pathlib import Path

OLDEST_TORCH = (2, 11)


def native_choice() -> str:
    """Returns what TRILEMMA_NATIVE asks for: "auto", "0" or "1"."""
    choice = os.environ.get("TRILEMMA_NATIVE") or "auto"
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"TRILEMMA_NATIVE={choice} is unknown; choose auto, 0 or 1")
    return choice


def torch_folder() -> Path | None:
    """Returns the folder of the torch to build against; None where there is none, or an older one than runs Trilemma.

    One that the building environment imports comes first. In an isolated build that is none, and the torch of the
    environment that is installed into counts, whose packages the isolation hides.
    """
    found = importlib.util.find_spec("torch")
    if found is not None and found.origin:
        folders = [Path(found.origin).parent]
    else:
        folders = [Path(sysconfig.get_path(scheme)) / "torch" for scheme in ("purelib", "platlib")]
    return next((folder for folder in folders if _serves(folder)), None)


def _serves(folder: Path) -> bool:
    """Says whether a torch is there that an installation would keep; its version is read without importing it."""
    try:
        text = (folder / "version.py").read_text()
    except OSError:
        return False
    version = re.search(r"__version__ = ['\"](\d+)\.(\d+)", text)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_TORCH
