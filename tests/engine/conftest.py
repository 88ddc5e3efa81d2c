"""Small networks that the engine is tested on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma_plugins.ddpm.process import DiscreteVP


class ConvolutionDenoiser(Denoiser):
    """Two convolutions with a time and a class embedding, v-prediction, four classes and a null one."""

    def __init__(self) -> None:
        super().__init__(DiscreteVP(), "v", (2, 6, 6), [ClassCondition("class", 4, null=4)])
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 2, 3, padding=1)
        self.classes = nn.Embedding(5, 8)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        embedding = self.classes(cond["class"]) + t[:, None].to(z.dtype)
        return self.second((self.first(z) + embedding[..., None, None]).tanh())


@pytest.fixture(scope="session")
def convolution() -> ConvolutionDenoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvolutionDenoiser().eval().requires_grad_(False)
