"""The Lagrange basis, ℓ_j(x) = Π_{k≠j} (x − x_k)/(x_j − x_k): 1 at one node and 0 at the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from numpy.polynomial import Polynomial
from torch import Tensor

Product = TypeVar("Product", Tensor, Polynomial)


def lagrange_values(nodes: Sequence[float], x: Tensor) -> list[Tensor]:
    """Returns ℓ_j(x), float64 and shaped like x, for each of the distinct nodes x_j."""

    def times(product: Tensor, node: float, other: float) -> Tensor:
        return product * (x - other) / (node - other)

    return _products(nodes, torch.ones_like(x), times)


def lagrange_polynomials(nodes: Sequence[float]) -> list[Polynomial]:
    """Returns ℓ_j as polynomials, for each of the distinct nodes x_j."""

    def times(product: Polynomial, node: float, other: float) -> Polynomial:
        return product * Polynomial([-other / (node - other), 1 / (node - other)])

    return _products(nodes, Polynomial([1.0]), times)


def _products(
    nodes: Sequence[float], one: Product, times: Callable[[Product, float, float], Product]
) -> list[Product]:
    basis = []
    for node in nodes:
        product = one
        for other in nodes:
            if other != node:
                product = times(product, node, other)
        basis.append(product)
    return basis
