"""A network that is added to the score of a point mass at the origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.time_table import TimeTable


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
        inner = lookup.denoiser(
            network, process=process, parameterization=parameterization, shape=shape, **options
        )
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.draws, self.takes_to = dict(inner.draws), inner.takes_to
        self.network = inner
        self.ratio = TimeTable(
            lambda t: process.last_component(t)[2] / process.moments(t)[1][..., -1, -1], process.earliest_time
        )

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        last = z[:, -self.shape[0] :]
        return self.ratio(t).to(z.dtype).view(-1, 1, 1, 1) * last + cast(Tensor, self.network(z, t, **cond))
