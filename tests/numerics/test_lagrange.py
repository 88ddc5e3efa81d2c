"""Both forms of the Lagrange basis reproduce a polynomial from its values at the nodes."""

from __future__ import annotations

import torch

from trilemma.numerics.lagrange import lagrange_polynomials, lagrange_values

NODES = [0.9, 0.4, -0.3, 0.1]


def cubic(x: torch.Tensor) -> torch.Tensor:
    return 2 * x**3 - x**2 + 0.5 * x - 3


def test_values_and_polynomials() -> None:
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    at_nodes = cubic(torch.tensor(NODES, dtype=torch.float64))
    values = torch.stack(lagrange_values(NODES, x))
    torch.testing.assert_close(at_nodes @ values, cubic(x))
    polynomials = torch.stack([torch.from_numpy(basis(x.numpy())) for basis in lagrange_polynomials(NODES)])
    torch.testing.assert_close(polynomials, values)
