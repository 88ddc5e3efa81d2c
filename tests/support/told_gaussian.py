"""An exact network that is told conditions of every kind: each moves the mean of Gaussian data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.interfaces.condition import (
    ClassCondition,
    Condition,
    ImageCondition,
    ScalarCondition,
    TextCondition,
)
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.encoder import Encoder
from trilemma.interfaces.process import Process
from trilemma.testing.gaussian import GaussianDenoiser

SHAPE = (1, 2, 2)
MEANS = (0.5, -0.3, 0.1)
SLOPE = 0.4


def told(encoder: Encoder) -> dict[str, Condition]:
    """Returns one condition of each kind and form by name, with a null."""
    kinds: Sequence[Condition] = (
        ClassCondition("class", 2, null=2, names=("seven", "nine")),
        ScalarCondition("level", -1, 1, null=True),
        ImageCondition("image", SHAPE, null=True),
        TextCondition("text", encoder, length=6),
        TextCondition("style", encoder, form="vector"),
    )
    return {condition.name: condition for condition in kinds}


class ToldGaussian(Denoiser):
    """Answers for x₀ ~ N(m, s²) with m a sum over what it is told: 0 for a null, but the class's own mean.

        m = MEANS[class] + SLOPE level + image + Σ of the first number of each token + the first number of the style

    Args:
        process: with one component.
        conditions: of `told`, those that it takes.
        variance: s².
    """

    def __init__(self, process: Process, conditions: Sequence[Condition], variance: float = 0.04) -> None:
        super().__init__(process, "eps", SHAPE, conditions)
        self.centred = GaussianDenoiser(process, 0.0, variance, "eps", SHAPE)
        self.calls = 0

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        assert set(cond) == set(self.keywords)
        self.calls += 1
        alpha = self.process.alpha(t.double().cpu()).view(-1, 1, 1, 1)
        return self.centred(z - (alpha * self.mean(cond, len(z))).to(z.dtype), t)

    def mean(self, cond: dict[str, Tensor], batch: int) -> Tensor:
        """Returns m [B, 1 or C, 1 or H, 1 or W] for tensors as `forward` gets them."""
        total = torch.zeros(batch, 1, 1, 1, dtype=torch.float64)
        column = (-1, 1, 1, 1)
        if "class" in cond:
            total = total + torch.tensor(MEANS, dtype=torch.float64)[cond["class"]].view(column)
        if "level" in cond:
            total = total + SLOPE * (cond["level"] * cond["level_given"]).double().view(column)
        if "image" in cond:
            total = total + cond["image"].double() * cond["image_given"].view(column)
        if "text" in cond:
            total = total + (cond["text"][..., 0] * cond["text_mask"]).double().sum(1).view(column)
        if "style" in cond:
            total = total + (cond["style"][:, 0] * cond["style_given"]).double().view(column)
        return total
