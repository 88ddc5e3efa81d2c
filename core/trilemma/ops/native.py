"""Finds and loads the native libraries, `_ops` and, for CUDA, `_ops_cuda`, and says why where it cannot."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch


@cache
def load() -> str:
    """Loads the native operators, once a process; "" if they are there, else the reason why they are not."""
    reason = _load("_ops", "the native library was not built (no C++ compiler at installation?)")
    if not reason:
        load_cuda()
    return reason


@cache
def load_cuda() -> str:
    """Loads the operators for CUDA tensors, once a process; "" or the reason. A GPU is not asked for."""
    if torch.version.cuda is None:
        return "this torch has no CUDA"
    return _load("_ops_cuda", "the native library for CUDA was not built (no nvcc at installation?)")


def _load(name: str, not_built: str) -> str:
    found = find_spec("trilemma")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    libraries = [library for folder in folders for library in sorted(folder.glob(f"{name}.*so"))]
    if not libraries:
        return not_built
    try:
        torch.ops.load_library(libraries[0])
    except (OSError, RuntimeError) as error:
        return f"{libraries[0].name} could not be loaded: {str(error).splitlines()[0]}"
    return ""
