"""A network of points whose answer is the gradient of an energy."""

from __future__ import annotations

from torch import Tensor

from trilemma.interfaces.denoiser import gradient_of
from trilemma_plugins.points.mlp import MLP


class EnergyMLP(MLP):
    """ε̂ = ∂F/∂z of an energy of the blocks of `mlp`, whose answer is g:

        F(z, t) = ½ ‖z − g(z, t)‖²,      ε̂ = −σ_t s and s = ∇_z log p_t(z):   F is −σ_t log p_t(z) + c(t)

    As the gradient of a function, the learned score has no curl, which the answer of `mlp` may have. Where only noise
    is left it is z, that of g = 0.

    Args:
        process: the noising process, of one component.
        parameterization: of the gradient: eps, as above, or another.
        shape: (C, H, W) of the data.
        width, depth, classes: as of `mlp`.

    Raises:
        UsageError: as `mlp` does.

    References:
        Salimans & Ho, Should EBMs model the energy or the score?, ICLR 2021 workshop on energy-based models.
    """

    components = (1,)
    gradient = True

    def energy(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns F [B] of states z [B, C, H, W] at times t [B] and labels `class` [B]."""
        return (z - super().forward(z, t, **cond)).square().flatten(1).sum(1) / 2

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the gradient [B, C, H, W] at state z [B, C, H, W], times t [B] and labels `class` [B]."""
        return gradient_of(lambda state: self.energy(state, t, **cond), z)
