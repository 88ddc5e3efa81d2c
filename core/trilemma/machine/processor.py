"""The processor: which model it is, and whether it multiplies tiles of bfloat16."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_TOLD = Path("/proc/cpuinfo")


@cache
def facts() -> dict[str, str]:
    """Returns the facts that Linux tells of the first processor, by name; none elsewhere."""
    try:
        first = _TOLD.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def model_name() -> str:
    """Returns the name of the model with its numbers, as names are shared by several."""
    told = facts()
    if "model name" not in told:
        return platform.processor() or platform.machine()
    numbers = [f"{name} {told[name]}" for name in ("cpu family", "model", "stepping") if name in told]
    return ", ".join([told["model name"], *numbers])


def has_tiles() -> bool:
    """Returns whether there are tile units for bfloat16 (AMX), which PyTorch's kernels use."""
    return "amx_bf16" in facts().get("flags", "").split()
