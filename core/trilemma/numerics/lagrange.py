"""The Lagrange basis: the polynomials that are 1 at one node and 0 at the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from numpy.polynomial import Polynomial
from torch import Tensor

Variable = TypeVar("Variable", Tensor, Polynomial)


def lagrange_basis(nodes: Sequence[float], x: Variable) -> list[Variable]:
    """Returns the basis polynomials, a polynomial a node, at the places x.

        ℓ_j(x) = Π_{k≠j} (x − x_k)/(x_j − x_k)

    Args:
        nodes: x_j, distinct.
        x: places, or `Polynomial([0, 1])` for the polynomials themselves.
    """
    basis = []
    for node in nodes:
        product = x * 0 + 1
        for other in nodes:
            if other != node:
                product = product * (x - other) / (node - other)
        basis.append(product)
    return basis
