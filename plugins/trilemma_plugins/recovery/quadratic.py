"""The energy of what another network leaves of a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, gradient_of
from trilemma.interfaces.process import Process


class QuadraticEnergy(Denoiser):
    """ε̂ = ∂F/∂z of the energy F(z, t) = ½ ‖z − g(z, t)‖² = −σ_t log p_t(z) + c(t), g the answer of another network.

    It learns as fast as g would by itself, for about three times the work: ε̂ = (I − ∂g/∂z)ᵀ (z − g).

    Args:
        process: the noising process, of one component.
        parameterization: of the gradient: eps, as above, or another.
        shape: (C, H, W) of the data.
        network: spec of the network, which draws nothing and is told no time that a row goes to.
        options: of the network.

    Raises:
        UsageError: for a network that does not do, or for what it refuses.

    References:
        Salimans & Ho, Should EBMs model the energy or the score?, ICLR 2021 workshop on energy-based models.
    """

    components = (1,)
    gradient = True

    def __init__(
        self,
        process: Process,
        parameterization: str = "eps",
        shape: Sequence[int] = (1, 28, 28),
        *,
        network: str = "unet",
        **options: Any,
    ) -> None:
        made, _ = lookup.build(
            "denoiser", network, process=process, parameterization=parameterization, shape=shape, **options
        )
        inner = cast(Denoiser, made)
        if inner.draws or inner.takes_to:
            raise UsageError(
                "energy-of: the network draws normals or is told a second time; leave those options out"
            )
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.network = inner

    def energy(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns F [B] of states z [B, C, H, W] at times t [B], under the conditions of the network."""
        return (z - self.network(z, t, **cond)).square().flatten(1).sum(1) / 2

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the gradient [B, C, H, W] at state z [B, C, H, W] and times t [B]."""
        return gradient_of(lambda state: self.energy(state, t, **cond), z)
