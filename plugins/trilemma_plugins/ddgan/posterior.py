"""Pairs of neighbouring states, and the posterior of the earlier one."""

from __future__ import annotations

from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.numerics.broadcasting import column


def pair(
    process: Process, x0: Tensor, s: Tensor, t: Tensor, noise: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns states z_s ~ q(z_s | x₀) and z_t ~ q(z_t | z_s) [B, ...], for times s < t [B]; time 0 is the data.

    Args:
        process: of one component.
        x0: data [B, ...].
        s, t: float64 on the host.
        noise: two standard normals [B, ...].
    """
    alpha, sigma = process.alpha_sigma(s)
    z_s = column(alpha, x0) * x0 + column(sigma, x0) * noise[0]
    return z_s, later(process, z_s, s, t, noise[1])


def later(process: Process, z: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Returns z_t ~ q(z_t | z_s) [B, ...] of states z_s, for s ≤ t.

    Args:
        process: of one component.
        z: states z_s [B, ...].
        s, t: float64 on the host [B].
        noise: standard normals [B, ...].
    """
    psi, deviation = _transition(process, s, t)
    return column(psi, z) * z + column(deviation, z) * noise


def earlier(process: Process, z: Tensor, x0: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Returns z_s ~ q(z_s | z_t, x₀) [B, ...] for s < t.

        mean  (Ψ σ_s²/σ_t²) z_t + (α_s Q/σ_t²) x₀,   variance  Q σ_s²/σ_t²,   with q(z_t | z_s) = N(Ψ z_s, Q)

    It is x₀ itself at s = 0.

    Args:
        process: of one component.
        z: states z_t [B, ...].
        x0: data, or a generator's answer [B, ...].
        s, t: float64 on the host [B].
        noise: standard normals [B, ...].
    """
    alpha, sigma = process.alpha_sigma(s)
    total = process.sigma(t)
    psi, deviation = _transition(process, s, t)
    of_state = psi * (sigma / total).square()
    of_data = alpha * (deviation / total).square()
    return column(of_state, z) * z + column(of_data, z) * x0 + column(deviation * sigma / total, z) * noise


def _transition(process: Process, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Ψ and √Q [B] of q(z_t | z_s); the data lie at s = 0."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.alpha_sigma(s), process.alpha_sigma(t)
    psi = alpha_t / alpha_s
    return psi, (sigma_t.square() - (psi * sigma_s).square()).clamp_min(0).sqrt()
