"""Finds and loads the native library `_ops`, and says why where it cannot."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch


@cache
def load() -> str:
    """Loads the native operators, once a process; "" if they are there, else the reason why they are not."""
    found = find_spec("trilemma")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    libraries = [library for folder in folders for library in sorted(folder.glob("_ops*.so"))]
    if not libraries:
        return "the native library was not built (no C++ compiler at installation?)"
    try:
        torch.ops.load_library(libraries[0])
    except (OSError, RuntimeError) as error:
        return f"{libraries[0].name} could not be loaded: {str(error).splitlines()[0]}"
    return ""
