"""A generator of one step and a discriminator that learn from each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.adversarial import discriminator_loss, fooling_loss
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.draws import standard_normals


@dataclass(frozen=True)
class Adversarial(Objective):
    """x̂₀ = G(z, t = 1) of a state z of the prior, against D(x) of data and of such x̂₀, in two updates a step:

        discriminator: E softplus(−D(x₀)) + E softplus(D(x̂₀)) + every · (γ/2) E ‖∇D(x₀)‖²
        model:         E softplus(−D(x̂₀))

    The last term of the discriminator is added in every `every`-th step alone, with that factor, so that it weighs as
    much as one of γ/2 in each. The generator is a denoiser that answers x₀; one step of `ddim` draws from it.
    The log has the gap E D(x₀) − E D(x̂₀), which stays small while neither wins.

    Args:
        gamma: γ.
        every: steps from one penalty to the next.
        width, depth: of the discriminator, a perceptron of the flattened data.

    Raises:
        UsageError: for a number out of range; in training, for a model that does not answer x₀ or takes conditions.

    References:
        Goodfellow et al., Generative Adversarial Networks, arXiv:1406.2661; Mescheder et al., Which Training Methods
        for GANs do actually Converge?, arXiv:1801.04406; Karras et al., Analyzing and Improving the Image Quality of
        StyleGAN, arXiv:1912.04958.
    """

    gamma: float = 0.01
    every: int = 8
    width: int = 128
    depth: int = 3

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise UsageError(f"gan: gamma={self.gamma!r} is negative; give a number from 0")
        checked_integer(self.every, "gan: every", 1, what="is no number of steps")
        checked_integer(self.width, "gan: width", 1, what="is no number of hidden units")
        checked_integer(self.depth, "gan: depth", 1, what="is no number of layers")

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Returns the discriminator."""
        shape = _generator(model).shape
        widths = [math.prod(shape), *[self.width] * self.depth]
        layers = [
            layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))
        ]
        return {"discriminator": nn.Sequential(nn.Flatten(), *layers, nn.Linear(self.width, 1))}

    def updates(self) -> tuple[Update, ...]:
        """Returns those of the discriminator and of the model, in this order."""
        return Update("discriminator", ("discriminator",)), Update("generator")

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss of an update; of the discriminator with the gap, and r1 where it is added."""
        discriminator = step.parts["discriminator"]
        fake = self.generated(step)
        if update.name == "generator":
            return fooling_loss(discriminator(fake))
        return discriminator_loss(
            discriminator, step.x0, fake, gamma=self.gamma, lazy=self.every, number=step.number
        )

    def generated(self, step: Step) -> Tensor:
        """Returns x̂₀ [B, ...] of fresh states of the prior."""
        generator = _generator(step.model)
        noise = standard_normals(step.x0, step.generator)
        t = torch.ones(len(noise), dtype=time_dtype(noise.dtype), device=noise.device)
        return step.network(generator.process.prior(noise), t).to(step.x0.dtype)


def _generator(model: nn.Module) -> Denoiser:
    if not isinstance(model, Denoiser) or model.parameterization != "x0" or model.process.components != 1:
        raise UsageError(
            'gan: the generator answers x₀ of one component; set denoiser.parameterization = "x0"'
        )
    if model.conditions:
        raise UsageError("gan: the generator takes no conditions; set denoiser.options.classes = 0")
    return model
