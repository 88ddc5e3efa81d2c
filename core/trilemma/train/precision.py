"""Mixed precision: the dtype of the forward pass, and the scale of the loss that float16 needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The forward pass in float32 ("no"), or under autocast in bfloat16 or float16.

    A float16 gradient underflows; its loss is multiplied by a scale that adapts (1710.03740).

    Raises:
        UsageError: for float16 on a CPU.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "fp16" and device.type == "cpu":
            raise UsageError(
                'recipe: precision = "fp16" needs a GPU and this device is a CPU; set precision = "bf16" or "no"'
            )
        self._dtype = _DTYPES.get(name)
        self._device = device
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """Returns the context of a forward pass, which overrides the caller's own autocast."""
        # Its cache of converted weights is one for all threads, and another thread that leaves a context empties it.
        return torch.autocast(
            self._device.type, self._dtype, enabled=self._dtype is not None, cache_enabled=False
        )

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the (scaled) loss."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the scale out of the gradients."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Updates the weights; float16 gradients that are not finite are skipped and lower the scale."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Returns the scale and its age; empty without one."""
        return dict(self._scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        if state:
            self._scaler.load_state_dict(state)
