"""The exact law of the samples that a plan draws from Gaussian data."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Tableau, matrix, vector
from trilemma.numerics.conversion import convert
from trilemma.testing.interpreter import interpret


def sample_law(tableau: Tableau, process: Process, mean: float, variance: float) -> tuple[float, float]:
    """Returns mean and variance of a sample of N(m, s²) (K = 1); see `state_law`."""
    found, cov = state_law(tableau, process, mean, variance)
    return float(found), float(cov)


def state_law(tableau: Tableau, process: Process, mean: float, variance: float) -> tuple[Tensor, Tensor]:
    """Returns mean [K] and covariance [K, K] after the last row, for data N(m, s²) and a start from its exact marginal.

    The exact denoiser x̂₀ = m + s² μᵀ V⁻¹ (z − μ m), V = s² μ μᵀ + Σ, is affine, so every state is an affine
    function of the standard normals that went into it: coefficients [K, 1 + K (1 + rows)] of 1, of the start and of
    each row's noise.
    A clip is not affine and is left out.
    """
    rows, K = tableau.rows, tableau.components
    t = torch.tensor([row.t for row in rows], dtype=torch.float64)
    mu, cov = process.moments(t)
    V = variance * mu.unsqueeze(-1) * mu.unsqueeze(-2) + cov
    gain = variance * torch.linalg.solve(V, mu.unsqueeze(-1)).squeeze(-1)
    w, alpha, sigma = process.last_component(t)
    p, q = convert("x0", tableau.parameterization, alpha, sigma)
    # f = slope·z + offset.
    slope = p.unsqueeze(-1) * w + q.unsqueeze(-1) * gain
    offset = q * (1 - (gain * mu).sum(-1)) * mean

    sources = torch.eye(1 + K * (1 + len(rows)), dtype=torch.float64)
    one, start, noises = sources[0], sources[1 : 1 + K], sources[1 + K :].unflatten(0, (len(rows), K))
    last = interpret(
        tableau,
        lambda r, row, z: slope[r] @ z + offset[r] * one,
        mean * mu[0].unsqueeze(-1) * one + torch.linalg.cholesky(V[0]) @ start,
        noises.__getitem__,
        on_states=lambda A, z: torch.tensor(matrix(A, K), dtype=torch.float64).view(K, K) @ z,
        on_predictions=lambda B, f: torch.tensor(vector(B, K), dtype=torch.float64).unsqueeze(-1) * f,
    )[-1]
    return last[:, 0], last[:, 1:] @ last[:, 1:].mT
