"""Exponential steps of dz = (M z + k f) dt: Φ(s, t), and ∫ Φ(s, τ) k(τ) ℓ_j(τ) dτ for a Lagrange basis ℓ_j on nodes.

M and k grow towards the data like powers of τ; both integrals run in √τ, in which they are tame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.numerics.lagrange import lagrange_values

_PLACES, _MASSES = (torch.from_numpy(entry) for entry in np.polynomial.legendre.leggauss(32))
_SUBSTEPS = 48


def along_the_drift(
    process: Process, t: float, s: float, nodes: Sequence[float]
) -> tuple[Tensor, list[Tensor]]:
    """Returns the flow and source of f = ε̂: M = F, whose flow is known, and k = ½ G Gᵀ e_K/σ."""
    root = torch.tensor([t, s], dtype=torch.float64).sqrt()
    place = root.mean() + (root[1] - root[0]) / 2 * _PLACES
    tau, mass = place.square(), (root[1] - root[0]) * _MASSES * place
    end = torch.full_like(tau, s)
    G, (_, _, sigma) = process.diffusion(tau), process.last_component(tau)
    k = (G @ G.mT)[..., -1] / (2 * sigma.unsqueeze(-1))
    moved = torch.linalg.solve(process.transition(end, tau)[0], k) * mass.unsqueeze(-1)
    whole = process.transition(end[0], torch.tensor(t, dtype=torch.float64))[0]
    return torch.linalg.inv(whole), list((torch.stack(lagrange_values(nodes, tau)) @ moved).unbind())


def around_a_point(
    process: Process, t: float, s: float, nodes: Sequence[float]
) -> tuple[Tensor, list[Tensor]]:
    """Returns those of f = x̂₀: M = F + ½ G Gᵀ Σ⁻¹ and k = −½ G Gᵀ e_K α/σ², by Runge–Kutta steps of order 4."""
    root = torch.linspace(t**0.5, s**0.5, 2 * _SUBSTEPS + 1, dtype=torch.float64)
    tau, h = root.square(), (root[-1] - root[0]) / _SUBSTEPS
    G, (w, alpha, sigma) = process.diffusion(tau), process.last_component(tau)
    pull = (G @ G.mT)[..., -1] / (2 * sigma.square().unsqueeze(-1))
    # dτ = 2√τ d√τ.
    stretch = (2 * root)[:, None, None]
    M = stretch * (process.drift(tau) + pull.unsqueeze(-1) * w.unsqueeze(-2))
    basis = torch.stack(lagrange_values(nodes, tau), -1)
    k = stretch * (-alpha.unsqueeze(-1) * pull).unsqueeze(-1) * basis.unsqueeze(-2)
    K = process.components
    source = torch.cat([torch.zeros_like(M), k], -1).numpy()
    # The products are small and many, and an array costs less than a tensor.
    M, h = M.numpy(), h.item()
    Y = np.concatenate([np.eye(K), np.zeros((K, len(nodes)))], -1)
    for j in range(0, 2 * _SUBSTEPS, 2):
        first = M[j] @ Y + source[j]
        second = M[j + 1] @ (Y + h / 2 * first) + source[j + 1]
        third = M[j + 1] @ (Y + h / 2 * second) + source[j + 1]
        fourth = M[j + 2] @ (Y + h * third) + source[j + 2]
        Y = Y + h / 6 * (first + 2 * second + 2 * third + fourth)
    whole = torch.from_numpy(Y)
    return whole[:, :K], list(whole[:, K:].mT.unbind())
