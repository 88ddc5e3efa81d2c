"""The reverse-time equation of a process that keeps its prior N(0, S), split in two.

    dz = (−F z + G Gᵀ ∇ log p) dt + G dW = [S Fᵀ S⁻¹ z dt + G dW] + G Gᵀ (∇ log p + S⁻¹ z) dt

The bracket is the forward process run backwards at rest: it keeps N(0, S) and is solved exactly. What remains is
small where p is close to the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process


def still(process: Process) -> Tensor:
    """S [K, K].

    Raises:
        UsageError: for a process under which its prior does not stand still.
    """
    K = process.components
    factor = process.prior(torch.eye(K, dtype=torch.float64).view(K, K, 1, 1)).view(K, K)
    S = factor.mT @ factor
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    F, G = process.drift(t), process.diffusion(t)
    change = F @ S + S @ F.mT + G @ G.mT
    if float(change.abs().max()) > 1e-9 * (1 + float(F.abs().max())):
        raise UsageError(
            f"sscs needs a process that keeps its prior, and {type(process).__name__} does not; use euler-maruyama"
        )
    return S


def rest(process: Process, S: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Ψ̃ and the lower Cholesky factor of Q̃, of the bracket's flow from time a down to b < a.

        Ψ̃ = S Ψᵀ S⁻¹,   Q̃ = R S Rᵀ + Ψ̃ Q Ψ̃ᵀ,   R = 1 − Ψ̃ Ψ

    Q̃ = S − Ψ̃ S Ψ̃ᵀ in the form in which a short flow's does not cancel.
    """
    psi, Q = process.transition(b, a)
    back = torch.linalg.solve(S, psi @ S).mT  # S Ψᵀ S⁻¹
    R = torch.eye(len(S), dtype=torch.float64) - back @ psi
    return back, torch.linalg.cholesky(R @ S @ R.mT + back @ Q @ back.mT)


def kick(process: Process, S: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """D [..., K, K] and g [..., K] of the remainder D z + g s, s the score of the last component: D = G Gᵀ S⁻¹."""
    G = process.diffusion(t)
    noise = G @ G.mT
    return torch.linalg.solve(S, noise.mT).mT, noise[..., -1]
