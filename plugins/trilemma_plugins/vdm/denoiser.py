"""A network that sees γ as its clock and the finest bits of the image as Fourier features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma_plugins.vdm.process import VDM

# Beyond it 2ⁿ z has no fraction left in float32.
_HIGHEST = 24


class FourierDenoiser(Denoiser):
    """Any network, shown z beside sin(2ⁿ π z) and cos(2ⁿ π z), at the time (γ(t) − γ_min)/(γ_max − γ_min):

        ε̂ = z + network([z, sin 2ⁿπz, cos 2ⁿπz], time)    (eps),     network(…) in the other parameterizations.

    The clock is scaled by the constants of the process, not by ends that move in training; on a process other than
    `vdm` it is t. The network is built for images with the features as further channels, of whose answers the first
    are read.

    Args:
        process: the noising process, of one component.
        parameterization: x0, eps, v, score or flow.
        shape: (C, H, W) of the data.
        network: spec of the network.
        frequencies: the n; none for no features.
        residual: whether ε̂ starts from z, in the parameterization eps.
        options: of the network.

    Raises:
        UsageError: for a process of several components, or what the network refuses.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
    """

    components = (1,)

    def __init__(
        self,
        process: Process,
        parameterization: str = "eps",
        shape: Sequence[int] = (1, 28, 28),
        *,
        network: str = "unet",
        frequencies: Sequence[int] = (7, 8),
        residual: bool = True,
        **options: Any,
    ) -> None:
        if process.components != 1:
            raise UsageError("vdm: Fourier features need a process of one component; choose one with x alone")
        if not all(type(n) is int and 0 <= n <= _HIGHEST for n in frequencies):
            raise UsageError(
                f"vdm: frequencies={list(frequencies)} must be integers from 0 to {_HIGHEST}; give others"
            )
        wide = (shape[0] * (1 + 2 * len(frequencies)), *shape[1:])
        # In γ as its clock, the network's own process is the one whose γ is linear in time.
        own = VDM("linear", process.gamma_min, process.gamma_max) if isinstance(process, VDM) else process
        inner = lookup.denoiser(
            network, process=own, parameterization=parameterization, shape=wide, **options
        )
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.draws, self.takes_to = dict(inner.draws), inner.takes_to
        self.network = inner
        self.frequencies = tuple(frequencies)
        self.residual = residual and parameterization == "eps"

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        features = [wave(2**n * math.pi * z) for n in self.frequencies for wave in (torch.sin, torch.cos)]
        if self.takes_to:
            cond["to"] = self._clock(cond["to"])
        answer = self.network(torch.cat([z, *features], 1), self._clock(t), **cond)[:, : self.shape[0]]
        return z + answer if self.residual else cast(Tensor, answer)

    def _clock(self, t: Tensor) -> Tensor:
        process = self.process
        if not isinstance(process, VDM):
            return t
        return ((process.gamma(t) - process.gamma_min) / (process.gamma_max - process.gamma_min)).to(t)
