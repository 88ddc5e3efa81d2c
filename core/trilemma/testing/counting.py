"""Denoisers that record or spoil their calls."""

from __future__ import annotations

import math

from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser


class Counting(Denoiser):
    """Another denoiser, with a record of its calls.

    Attributes:
        times: time of every call.
        batches: size of every call.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(
            denoiser.process, denoiser.parameterization, denoiser.shape, list(denoiser.conditions.values())
        )
        self.inner = denoiser
        self.times: list[float] = []
        self.batches: list[int] = []

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        self.times.append(float(t[0]))
        self.batches.append(len(z))
        answer: Tensor = self.inner(z, t, **cond)
        return answer


class Spoiled(Counting):
    """Another denoiser, that answers with NaN in one row from its second call on."""

    def __init__(self, denoiser: Denoiser, row: int) -> None:
        super().__init__(denoiser)
        self.row = row

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        answer = super().forward(z, t, **cond).clone()
        if len(self.times) > 1:
            answer[self.row] = math.nan
        return answer
