"""An orthogonal linear autoencoder: the Haar transform of patches of 2×2 pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.interfaces.autoencoder import LOWEST, Autoencoder
from trilemma.interfaces.denoiser import Denoiser
from trilemma.numerics.normal import STEP
from trilemma.numerics.patches import unshuffled

SIGNS = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


class Haar(Autoencoder):
    """c = W x of every patch, and x = Wᵀ c, with W orthogonal 4×4; images [1, H, W], codes [4, H/2, W/2]."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, 4)

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return 4, shape[1] // 2, shape[2] // 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = torch.einsum("ij,bjhw->bihw", SIGNS.to(x), unshuffled(x, 2))
        return code, torch.full_like(code, LOWEST)

    def decode(self, code: Tensor) -> Tensor:
        return F.pixel_shuffle(torch.einsum("ij,bihw->bjhw", SIGNS.to(code), code), 2)


class OfCodes(Denoiser):
    """The denoiser of codes that a denoiser f of pixels is: W f(Wᵀ z)."""

    def __init__(self, pixels: Denoiser, autoencoder: Haar) -> None:
        shape = autoencoder.code_shape(pixels.shape)
        super().__init__(pixels.process, pixels.parameterization, shape, tuple(pixels.conditions.values()))
        self.pixels, self.coder = pixels, autoencoder

    def forward(self, z: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        return self.coder.encode(self.pixels(self.coder.decode(z), t, **told))[0]


class Rotated:
    """A source of noise W ξ, with ξ the pixels' noise of another source."""

    seed = None

    def __init__(self, source, autoencoder: Haar) -> None:
        self.source, self.coder = source, autoencoder

    def normal(self, indices, step, shape, stream=STEP, dtype=torch.float32, device=None) -> Tensor:
        pixels = self.source.normal(indices, step, self.coder.shape, stream, dtype, device)
        return self.coder.encode(pixels)[0]
