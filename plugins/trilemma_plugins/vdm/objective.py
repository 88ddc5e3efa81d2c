"""The variational bound as a training loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.numerics.conversion import noise_error
from trilemma.numerics.grids import MOST_STEPS
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.vdm.bound import (
    bits_per_dimension,
    continuous_weight,
    discrete_weight,
    prior_kl,
    reconstruction,
)
from trilemma_plugins.vdm.gradient_scaling import GradientScaling
from trilemma_plugins.vdm.process import VDM

Weighting = Literal["bound", "sigmoid", "uniform"]
Descent = Literal["variance", "bound"]


@dataclass(frozen=True)
class VariationalBound(Objective):
    """Bits per dimension of the bound of −log p(x): prior, reconstruction, and the diffusion term

        ½ T expm1(γ_t − γ_s) w ‖ε − ε̂(z_t)‖²   (T steps),     ½ γ'(t) w ‖ε − ε̂(z_t)‖²   (continuous time).

    w = 1 is the bound; "sigmoid" has w = floor + (1 − floor) sigmoid(bias + γ) (2303.00848), whose floor keeps the
    finest levels, where most of the bits are, in the loss; "uniform" takes ‖ε − ε̂‖² over uniform t, whatever the
    schedule. Only the network learns from the weighted term: a learned schedule gets, in the same backward pass, the
    gradient of the bound for its ends and the gradient of the bound's variance for its interior.

    Args:
        steps: T; None for continuous time.
        weighting: "bound", "sigmoid" or "uniform".
        bias: b of the sigmoid weighting.
        floor: least w of the sigmoid weighting, reached where only the finest details are left to learn.
        interior: the quantity that the interior of a learned schedule minimises: the "variance" of the diffusion term,
            or the "bound", which in continuous time does not depend on the interior.
        scale: factor of the gradient of the variance. Adam divides it out again, but clipping the norm of all gradients
            does not: unscaled, this gradient exceeds the network's and would leave that almost nothing.
        stratified: low-discrepancy times, instead of independent ones.
        levels: grey levels of a pixel.
        drop: probability of replacing the conditions of an example by the null ones (2207.12598).

    Raises:
        UsageError: for an unknown weighting or interior, fewer than one step or two levels, a floor or drop outside
            [0, 1]; in training, for a process that is not `vdm`.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
        Kingma & Gao, Understanding Diffusion Objectives as the ELBO, arXiv:2303.00848.
    """

    steps: int | None = None
    weighting: Weighting = "bound"
    bias: float = 2.0
    floor: float = 0.0
    interior: Descent = "variance"
    scale: float = 0.01
    stratified: bool = True
    levels: int = 256
    drop: float | dict[str, float] = 0.0

    def __post_init__(self) -> None:
        if self.steps is not None:
            checked_integer(self.steps, "vlb: steps", 1, MOST_STEPS, what="is no number of steps")
        if self.weighting not in ("bound", "sigmoid", "uniform"):
            raise UsageError(f"vlb: unknown weighting={self.weighting!r}; expected bound, sigmoid or uniform")
        if not 0 <= self.floor <= 1:
            raise UsageError(f"vlb: floor={self.floor!r} is no weight; expected a number from 0 to 1")
        if self.interior not in ("variance", "bound"):
            raise UsageError(f"vlb: unknown interior={self.interior!r}; expected variance or bound")
        if not self.scale > 0:
            raise UsageError(f"vlb: scale={self.scale!r} is not positive; give a positive number")
        checked_integer(self.levels, "vlb: levels", 2, 2**16, what="is no number of grey levels")
        check_drop("vlb", self.drop)

    def loss(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Returns the bound in bits per dimension, mean over the batch."""
        process = _schedule_of(denoiser)
        scaling = GradientScaling() if self.interior == "variance" else None
        t = self.draw_times(len(x0), generator)
        noise = _normal(x0, generator)
        cond = drop_conditions(denoiser, cond, self.drop, generator)
        diffusion = self.diffusion(network, denoiser, x0, t, noise, cond, scaling)
        alpha, sigma = _levels(process.gamma(torch.tensor([0.0, 1.0], dtype=torch.float64)))
        alpha, sigma = alpha.to(x0), sigma.to(x0)
        z0 = alpha[0] * x0 + sigma[0] * _normal(x0, generator)
        beside = prior_kl(x0, alpha[1], sigma[1]) + reconstruction(x0, z0, alpha[0], sigma[0], self.levels)
        return bits_per_dimension(diffusion + beside, x0).mean()

    def draw_times(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draws times t [B], float64: uniform in [0, 1), or in 1/T, 2/T, …, 1."""
        u = uniform_draws(batch, generator, self.stratified)
        return u if self.steps is None else (torch.floor(u * self.steps) + 1) / self.steps

    def diffusion(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        cond: Mapping[str, Tensor],
        interior: GradientScaling | None = None,
    ) -> Tensor:
        """Returns the weighted diffusion term [B], in nats, of data x₀ [B, ...] at times t [B] with noise [B, ...].

        Args:
            interior: the scaling by which the interior of the schedule gets the gradient of the bound's variance; None
                leaves it the bound's own.
        """
        process = _schedule_of(denoiser)
        schedule = GradientScaling()
        with process.scaled_gradients(interior, schedule):
            gamma = process.gamma(t)
            column = (-1, *[1] * (x0.dim() - 1))
            alpha, sigma = (entry.to(x0).view(column) for entry in _levels(gamma))
            z = alpha * x0 + sigma * noise
            prediction = network(z, t.to(x0.device, time_dtype(x0.dtype)), **cond).to(x0.dtype)
            bound = self._bound_weight(process, t, gamma)
        error = noise_error(prediction, denoiser.parameterization, x0, noise, alpha, sigma)
        weight = self._weight(bound, gamma)
        schedule.set(1 / weight)
        if interior is not None:
            interior.set(2 * self.scale * bits_per_dimension(bound.to(error) * error, x0))
        return weight.to(error) * bound.to(error) * error

    def _bound_weight(self, process: VDM, t: Tensor, gamma: Tensor) -> Tensor:
        if self.steps is None:
            return continuous_weight(process.slope(t))
        return discrete_weight(process.gamma(t - 1 / self.steps), gamma, self.steps)

    @torch.no_grad()
    def _weight(self, bound: Tensor, gamma: Tensor) -> Tensor:
        """w [B] of the term that the bound weighs by `bound` [B]."""
        match self.weighting:
            case "bound":
                return torch.ones_like(gamma)
            case "uniform":
                return 1 / bound
            case "sigmoid":
                return self.floor + (1 - self.floor) * torch.sigmoid(self.bias + gamma)


def _levels(gamma: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.randn(like.shape, generator=generator, dtype=dtype).to(like)


def _schedule_of(denoiser: Denoiser) -> VDM:
    if not isinstance(denoiser.process, VDM):
        name = type(denoiser.process).__name__
        raise UsageError(
            f'vlb: the bound is trained on the process vdm, not {name}; set [process] spec = "vdm"'
        )
    return denoiser.process
