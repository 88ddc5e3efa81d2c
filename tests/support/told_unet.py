"""Small U-Nets that are told things, and what to tell them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trilemma.interfaces.condition import (
    ClassCondition,
    Condition,
    ImageCondition,
    ScalarCondition,
    TextCondition,
)
from trilemma.testing import WordEncoder
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.unet.unet import UNet

PROCESS = DiscreteVP()
WORDS = WordEncoder(12)
LENGTH = 6

CONDITIONS: dict[str, Condition] = {
    "class": ClassCondition("class", 3, null=3),
    "scalar": ScalarCondition("level", -1, 2, null=True),
    "image": ImageCondition("low", (1, 4, 4), null=True, resize="bilinear"),
    "vector": TextCondition("summary", WORDS, form="vector"),
    "sequence": TextCondition("text", WORDS, length=LENGTH),
}
# Two values of each.
VALUES: dict[str, tuple[Any, Any]] = {
    "class": (0, 2),
    "scalar": (-0.5, 1.5),
    "image": (torch.full((1, 4, 4), -0.5), torch.linspace(-1, 1, 16).view(1, 4, 4)),
    "vector": ("a thin one", "two bold"),
    "sequence": ("a thin one", "a bold one"),
}
ALL = (
    *CONDITIONS.values(),
    ClassCondition("other", 2),
    ScalarCondition("weight", 0, 1),
    ImageCondition("beside", (2, 8, 8), resize="exact"),
    TextCondition("more", WordEncoder(5), length=3, null=False),
)


def unet(*conditions: Condition, **options: Any) -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(
            PROCESS,
            shape=(1, 8, 8),
            conditions=conditions,
            **{
                "channels": (16,),
                "blocks": 1,
                "groups": 4,
                "head": 8,
                "transformer": (8,),
                "embedding": 32,
                **options,
            },
        )


def randomised(net: UNet) -> UNet:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net.eval().requires_grad_(False)


def state(count: int) -> tuple[Tensor, Tensor]:
    z = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return z, torch.linspace(0.2, 0.9, count)


def told(net: UNet, count: int, **cond: Any) -> dict[str, Tensor]:
    return net.prepare(cond).take(torch.arange(count))
