"""A network that is added to the score of a point mass at the origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process

_INTERVALS = 1024


class MixedScoreDenoiser(Denoiser):
    """The mixed score: s = −v/Σ_vv − ℓ network(z, t), Σ_vv the variance of the velocity, ℓ = 1/L_KK, as noise:

        ε̂ = r(t) z_K + network(z, t),   r = L_KK/Σ_KK.

    Near the prior the first term alone is the score, and nothing is left for the network to learn.

    Args:
        process: the noising process, of two components.
        parameterization: eps.
        shape: (C, H, W) of the data.
        network: spec of the network.
        options: of the network.

    Raises:
        UsageError: for a process of one component, another parameterization, or what the network refuses.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068;
        Vahdat et al., arXiv:2106.05931.
    """

    components = (2,)

    def __init__(
        self,
        process: Process,
        parameterization: str = "eps",
        shape: Sequence[int] = (1, 28, 28),
        *,
        network: str = "unet",
        **options: Any,
    ) -> None:
        if process.components not in self.components:
            raise UsageError("cld: the mixed score needs a velocity; choose a process of two components")
        if parameterization != "eps":
            raise UsageError(f"cld: the mixed score is an answer in eps, not {parameterization!r}; give eps")
        inner, _ = lookup.build(
            "denoiser", network, process=process, parameterization=parameterization, shape=shape, **options
        )
        inner = cast(Denoiser, inner)
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.draws, self.takes_to = dict(inner.draws), inner.takes_to
        self.network = inner
        # A table, linear in √t, so that no time is read back from a device while sampling.
        root = torch.linspace(process.earliest_time**0.5, 1, _INTERVALS + 1, dtype=torch.float64)
        t = root.square()
        ratio = process.last_component(t)[2] / process.moments(t)[1][..., -1, -1]
        self.register_buffer("ratios", ratio.float(), persistent=False)
        self._first, self._step = float(root[0]), float(root[1] - root[0])

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        last = z[:, -self.shape[0] :]
        return self._ratio(t).to(z.dtype).view(-1, 1, 1, 1) * last + cast(Tensor, self.network(z, t, **cond))

    def _ratio(self, t: Tensor) -> Tensor:
        """r(t) [B]."""
        place = ((t.float().sqrt() - self._first) / self._step).clamp(0, _INTERVALS)
        index = place.long().clamp_max(_INTERVALS - 1)
        # The ratios have the dtype that the network was moved to.
        ratios = cast(Tensor, self.ratios)
        return torch.lerp(ratios[index].float(), ratios[index + 1].float(), place - index)
