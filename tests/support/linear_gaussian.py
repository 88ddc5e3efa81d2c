"""A linear autoencoder with a normal likelihood, whose marginal density and posterior are known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.interfaces.autoencoder import Autoencoder

# Images of 2×2 pixels: p(x | c) = N(A c, D), and of each code the posterior is normal and diagonal, since Aᵀ D⁻¹ A is.
COLUMNS = torch.tensor([[0.9, 0.9, 0.9, 0.9], [0.4, -0.4, 0.4, -0.4]], dtype=torch.float64).T
NOISE = 0.3


class LinearGaussian(Autoencoder):
    """p(c) = N(0, I) of two numbers, p(x | c) = N(A c, s² I), and q(c | x) = p(c | x), the exact posterior."""

    def __init__(self, shape: tuple[int, ...] = (1, 2, 2), widened: float = 1.0) -> None:
        super().__init__(shape, 2)
        self.columns = torch.nn.Parameter(COLUMNS.clone())
        self.widened = widened
        self.double()

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        return 2, 1, 1

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        precision = 1 + self.columns.square().sum(0) / NOISE**2
        mean = (x.flatten(1) @ self.columns) / NOISE**2 / precision
        log_variance = (self.widened / precision).log().expand_as(mean)
        return mean[:, :, None, None], log_variance[:, :, None, None]

    def decode(self, code: Tensor) -> Tensor:
        return (code.flatten(1) @ self.columns.T).view(-1, 1, 2, 2)

    def log_likelihood(self, x: Tensor, code: Tensor) -> Tensor:
        off = (x - self.decode(code)).flatten(1)
        return -(off.square() / NOISE**2 + math.log(2 * math.pi * NOISE**2)).sum(1) / 2

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) [B], of N(0, A Aᵀ + s² I)."""
        cov = self.columns @ self.columns.T + NOISE**2 * torch.eye(4, dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), cov)
        return law.log_prob(x.flatten(1))
