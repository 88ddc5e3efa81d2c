"""A function of time that is read on the device of the times."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


class TimeTable(nn.Module):
    """A smooth function of t in [first, 1], interpolated linearly in √t from values that are made once on the host.

    Nothing is read back from a device while a network is sampled. The table is no part of the weights.

    Args:
        function: f(t) of times [N], float64, in float64: [N] or [N, k].
        first: smallest t; below it the value there is taken.
        intervals: cells of the table.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], first: float, intervals: int = 1024) -> None:
        super().__init__()
        root = torch.linspace(first**0.5, 1, intervals + 1, dtype=torch.float64)
        self.register_buffer("values", function(root.square()).float(), persistent=False)
        self._first, self._step, self._intervals = float(root[0]), float(root[1] - root[0]), intervals

    def forward(self, t: Tensor) -> Tensor:
        """Returns f(t) [B] or [B, k], float32, of times t [B]."""
        place = ((t.float().sqrt() - self._first) / self._step).clamp(0, self._intervals)
        index = place.long().clamp_max(self._intervals - 1)
        # The values have the dtype that the network was moved to.
        values = cast(Tensor, self.values)
        share = (place - index).view(-1, *[1] * (values.dim() - 1))
        return torch.lerp(values[index].float(), values[index + 1].float(), share)
