"""The step onto the data: the state at t = 0 that a prediction stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert


def onto_data(process: Process, t: Tensor, parameterization: str) -> tuple[Tensor, Tensor]:
    """A [..., K, K] and B [..., K] of E[z_0 | z_t] = A z_t + B f, with E[x₀ | z_t] as the prediction f says.

    With z_0 = μ₀ x₀ + u, u ~ N(0, Σ₀) independent of x₀, z_t = μ x₀ + Ψ u + noise and J = Σ₀ Ψᵀ Σ⁻¹,

        E[z_0 | z_t] = μ₀ x̂₀ + J (z_t − μ x̂₀).

    Args:
        process: whose Σ₀ is that of components which know nothing of the data, such as a velocity; K = 1 has none.
        t: above 0, float64 [...].
        parameterization: of f, a name from `trilemma.numerics.conversion.PARAMETERIZATIONS`.
    """
    w, alpha, sigma = process.last_component(t)
    p, q = convert(parameterization, "x0", alpha, sigma)
    if process.components == 1:
        return p[..., None, None], q[..., None]
    zero = torch.zeros_like(t)
    (mean_0, cov_0), (mean, cov) = process.moments(zero), process.moments(t)
    psi = process.transition(zero, t)[0]
    J = torch.linalg.solve(cov, psi @ cov_0).mT
    of_x0 = mean_0 - (J @ mean.unsqueeze(-1)).squeeze(-1)
    A: Tensor = J + of_x0.unsqueeze(-1) * (p.unsqueeze(-1) * w).unsqueeze(-2)
    return A, q.unsqueeze(-1) * of_x0
