"""The operator splitting of the reverse-time equation of a process that keeps its prior N(0, S).

    dz = (−F z + G Gᵀ ∇ log p) dt + G dW = [S Fᵀ S⁻¹ z dt + G dW] + G Gᵀ (∇ log p + S⁻¹ z) dt

The bracket is a linear (Ornstein–Uhlenbeck) equation that keeps N(0, S); it is solved exactly. The other term, by
the score, is small where p is close to the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process


def stationary_covariance(process: Process) -> Tensor:
    """Returns S [K, K] of a process that keeps its prior N(0, S).

    Raises:
        UsageError: for a process under which its prior is not stationary.
    """
    S = process.prior_covariance()
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    F, G = process.drift(t), process.diffusion(t)
    change = F @ S + S @ F.mT + G @ G.mT
    if float(change.abs().max()) > 1e-9 * (1 + float(F.abs().max())):
        raise UsageError(
            f"sscs needs a process that keeps its prior, and {type(process).__name__} does not; use euler-maruyama"
        )
    return S


def linear_flow(process: Process, S: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns Ψ̃ and the lower Cholesky factor of Q̃, of the bracket's solution from time a down to b < a.

        Ψ̃ = S Ψᵀ S⁻¹,   Q̃ = R S Rᵀ + Ψ̃ Q Ψ̃ᵀ,   R = 1 − Ψ̃ Ψ

    Q̃ = S − Ψ̃ S Ψ̃ᵀ, in the form that does not cancel where a − b is small.
    """
    psi, Q = process.transition(b, a)
    # S Ψᵀ S⁻¹.
    back = torch.linalg.solve(S, psi @ S).mT
    R = torch.eye(len(S), dtype=torch.float64) - back @ psi
    return back, torch.linalg.cholesky(R @ S @ R.mT + back @ Q @ back.mT)


def score_term(process: Process, S: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns D = G Gᵀ S⁻¹ [..., K, K] and g [..., K] of the score's term D z + g s, s that of the last component."""
    G = process.diffusion(t)
    noise = G @ G.mT
    return torch.linalg.solve(S, noise.mT).mT, noise[..., -1]
