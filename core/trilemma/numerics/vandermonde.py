"""Weights of a quadrature on given nodes, from the moments that it integrates exactly."""

from __future__ import annotations

from collections.abc import Sequence


def vandermonde(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Returns the weights w_j with Σ_j w_j x_j^k = m_k for k = 0 .. n − 1, by the algorithm of Björck and Pereyra.

    Args:
        nodes: x_j, n distinct numbers.
        moments: m_k, as many.

    References:
        Björck & Pereyra, Solution of Vandermonde Systems of Equations, Mathematics of Computation 24 (1970).
    """
    w, n = list(moments), len(nodes)
    for k in range(n - 1):
        for i in range(n - 1, k, -1):
            w[i] -= nodes[k] * w[i - 1]
    for k in range(n - 2, -1, -1):
        for i in range(k + 1, n):
            w[i] /= nodes[i] - nodes[i - k - 1]
        for i in range(k, n - 1):
            w[i] -= w[i + 1]
    return w
