"""Memory: how much there is, and the refusal of requests that cannot fit in it."""

from __future__ import annotations

import os

import torch

from trilemma.errors import UsageError


def physical_memory(device: torch.device | str = "cpu") -> int:
    """Returns the bytes of memory of a device."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(wanted: int, what: str, cure: str, device: torch.device | str = "cpu") -> None:
    """Refuses a request that would take more bytes than a device has.

    Args:
        wanted: bytes.
        what: what takes them, such as "n=1000 samples".
        cure: what to do instead.

    Raises:
        UsageError: where there is less memory.
    """
    there = physical_memory(device)
    if wanted > there:
        raise UsageError(
            f"{what} take {wanted / 1e9:,.0f} GB of memory, {device} has {there / 1e9:,.0f}; {cure}"
        )
