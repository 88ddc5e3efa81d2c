"""The energy of the noise that another network finds in a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, gradient_of
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert
from trilemma.numerics.time_table import TimeTable


class QuadraticEnergy(Denoiser):
    """ε̂ = ∂F/∂z of the energy of the noise ê that another network finds:

        F(z, t) = ½ σ_t ‖ê(z, t)‖² = ‖z − α_t x̂₀(z, t)‖²/(2σ_t) = −σ_t log p_t(z) + c(t)

    It is exact where the data are one point x̂₀. Elsewhere ε̂ = σ (∂ê/∂z)ᵀ ê is close to ê, since σ ∂ê/∂z is close to
    the projection off the data, so that an energy that begins with the weights of a trained network (`start`) is nearly
    trained. An evaluation is about three times the work of the network's.

    Args:
        process: the noising process, of one component.
        parameterization: of the gradient: eps.
        shape: (C, H, W) of the data.
        network: spec of the network, which draws nothing and is told no time that a row goes to.
        answer: parameterization of the network.
        options: of the network.

    Raises:
        UsageError: for another parameterization than eps, a network that does not do, or for what it refuses.

    References:
        Salimans & Ho, Should EBMs model the energy or the score?, ICLR 2021 workshop on energy-based models;
        Du et al., Reduce, Reuse, Recycle, arXiv:2302.11552.
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
        answer: str = "v",
        **options: Any,
    ) -> None:
        if parameterization != "eps":
            raise UsageError(
                f"energy-of: its gradient is an answer in eps, not {parameterization!r}; give eps"
            )
        inner = lookup.denoiser(network, process=process, parameterization=answer, shape=shape, **options)
        if inner.draws or inner.takes_to:
            raise UsageError(
                "energy-of: the network draws normals or is told a second time; leave those options out"
            )
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.network = inner

        def factors(t: Tensor) -> Tensor:
            """√σ p and √σ q of ê = p z + q answer, [N, 2]."""
            alpha, sigma = process.alpha_sigma(t)
            return sigma.sqrt()[:, None] * torch.stack(convert(answer, "eps", alpha, sigma), 1)

        self.factors = TimeTable(factors, process.earliest_time)

    def energy(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns F [B] of states z [B, C, H, W] at times t [B], under the conditions of the network."""
        p, q = self.factors(t).to(z.dtype).view(-1, 2, *[1] * (z.dim() - 1)).unbind(1)
        noise = p * z + q * self.network(z, t, **cond)
        return noise.square().flatten(1).sum(1) / 2

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the gradient [B, C, H, W] at state z [B, C, H, W] and times t [B]."""
        return gradient_of(lambda state: self.energy(state, t, **cond), z)
