"""EDM's preconditioning around any network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process


class Preconditioned(Denoiser):
    """x̂₀ = c_skip z + c_out F(c_in z, c_noise): F sees unit variance and is asked for unit variance at every level.

    For z = α x₀ + σ ε and data of deviation s, with d² = σ² + α² s²:

        c_skip = α s²/d²,   c_out = σ s/d,   c_in = 1/d,   c_noise = log(σ/α)/4

    F gets c_noise on the clock, as 1/2 + c_noise/`span` cut to [0, 1], for networks that embed a time in [0, 1].

    Args:
        process: in continuous time, with one component.
        parameterization: "x0", which is what this puts out.
        shape: (C, H, W) of the data.
        network: name of the denoiser F; the further options are its own.
        data: s.
        span: of c_noise.

    Raises:
        UsageError: for another parameterization, or a process on a table.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    def __init__(
        self,
        process: Process,
        parameterization: str = "x0",
        shape: Sequence[int] = (1, 28, 28),
        *,
        network: str = "unet",
        data: float = 0.5,
        span: float = 4.0,
        **options: Any,
    ) -> None:
        if parameterization != "x0":
            raise UsageError(f"edm puts out x0, not {parameterization!r}; give parameterization x0")
        if process.table is not None or process.components > 1:
            raise UsageError(
                f"edm needs a process of one component in continuous time, not {process}; take edm"
            )
        inner, _ = lookup.build(
            "denoiser", network, process=process, parameterization="x0", shape=tuple(shape), **options
        )
        inner = cast(Denoiser, inner)
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.draws, self.takes_to = dict(inner.draws), inner.takes_to
        self.network = inner
        self.data, self.span = data, span

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        column = (-1,) + (1,) * (z.dim() - 1)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        norm = (sigma.square() + alpha.square() * self.data**2).sqrt()
        c_in, c_skip, c_out = (
            entry.to(z.dtype).view(column)
            for entry in (1 / norm, alpha * (self.data / norm).square(), sigma * self.data / norm)
        )
        if self.takes_to:
            to = cond["to"]
            cond["to"] = self._clock(self.process.alpha(to), self.process.sigma(to)).to(to.dtype)
        answer: Tensor = self.network(c_in * z, self._clock(alpha, sigma).to(t.dtype), **cond)
        return c_skip * z + c_out * answer

    def _clock(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        c_noise = torch.log(sigma / alpha) / 4
        return (0.5 + c_noise / self.span).clamp(0, 1)
