"""A linear autoencoder, through which the law of Gaussian codes is a law of images in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.autoencoder import LOWEST, Autoencoder

# Codes of two numbers of images of 2×2 pixels: two rows that are orthonormal.
ROWS = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]])


class LinearCodes(Autoencoder):
    """c = W x, and x = Wᵀ c + b, with images of 2×2 pixels and codes [2, 1, 1]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, 2)
        self.rows = torch.nn.Parameter(ROWS.clone())
        self.offset = torch.nn.Parameter(torch.zeros(4))

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        return 2, 1, 1

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = ((x.flatten(1) - self.offset) @ self.rows.T)[:, :, None, None]
        return code, torch.full_like(code, LOWEST)

    def decode(self, code: Tensor) -> Tensor:
        return (code.flatten(1) @ self.rows + self.offset).view(-1, 1, 2, 2)
