"""Devices by name."""

from __future__ import annotations

import torch

from trilemma.errors import TrilemmaError, UsageError


def usable_device(device: str | torch.device | None) -> torch.device:
    """Returns the device that a name means; CPU for None.

    Raises:
        UsageError: for a name that torch does not know.
        TrilemmaError: for a device that is not here, or that this torch cannot use.
    """
    try:
        found = torch.device(device or "cpu")
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}; give for example cpu, cuda or cuda:1") from error
    try:
        torch.empty(1, device=found)
    except Exception as error:
        # Each kind of device raises errors of its own.
        reason = str(error).strip().partition("\n")[0]
        raise TrilemmaError(
            f"device {str(found)!r} cannot be used: {reason}; see trilemma doctor, or take another device"
        ) from error
    return found
