"""The exact prediction of a Gaussian mixture where the state stacks K components of it."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.numerics.conversion import OF_SEVERAL_COMPONENTS


def posterior(
    z: Tensor, mean: Tensor, cov: Tensor, means: Tensor, variances: Tensor, log_prior: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns x̂₀ [B, C, ...] and −∇_z log p [B, K, C·...] for x₀ ~ Σ_c w_c N(m_c, s_c² I), z | x₀ ~ N(μ ⊗ x₀, Σ ⊗ I).

    With V_c = s_c² μ μᵀ + Σ, d_c = z − μ ⊗ m_c and r_c ∝ w_c N(z; μ ⊗ m_c, V_c ⊗ I):

        x̂₀ = Σ_c r_c (m_c + s_c² μᵀ V_c⁻¹ d_c),    −∇_z log p = Σ_c r_c V_c⁻¹ d_c.

    Args:
        z: states [B, K·C, ...], component by component, float64.
        mean, cov: μ [B, K] and Σ [B, K, K].
        means: m_c [c, C, ...].
        variances: s_c² [c].
        log_prior: log w_c [c, B], up to a constant; −∞ for components that are excluded.
    """
    K, shape = mean.shape[-1], means.shape[1:]
    # Shape [c, 1, 1, n].
    points = means.flatten(1)[:, None, None]
    spread = variances.view(-1, 1, 1, 1)
    V = spread * mean.unsqueeze(-1) * mean.unsqueeze(-2) + cov
    centred = z.reshape(len(z), K, means[0].numel()) - mean.unsqueeze(-1) * points
    pull = torch.linalg.solve(V, centred)
    distance = (centred * pull).sum((-2, -1)) + means[0].numel() * V.logdet()
    r = (log_prior - distance / 2).softmax(0)[..., None, None]
    x0 = (r * (points + spread * (mean.unsqueeze(-1) * pull).sum(-2, keepdim=True))).sum(0)
    return x0.reshape(len(z), *shape), (r * pull).sum(0)


def predicted(parameterization: str, x0: Tensor, pull: Tensor, cov: Tensor) -> Tensor:
    """Returns the prediction [B, C, ...] from `posterior`: x̂₀, or ε and the score of the last component.

    With z = μ ⊗ x₀ + L ε and Σ = L Lᵀ, L lower triangular, ∇ log p by the last component is −ε_K/L_KK (2112.07068).
    """
    last = pull[:, -1].reshape(x0.shape)
    match parameterization:
        case "x0":
            return x0
        case "score":
            return -last
        case "eps":
            scale: Tensor = torch.linalg.cholesky(cov)[:, -1, -1]
            return scale.view(-1, *(1,) * (x0.dim() - 1)) * last
    raise UsageError(
        f"{parameterization!r} is defined for a process of one component only; "
        f"ask for {', '.join(OF_SEVERAL_COMPONENTS)}"
    )
