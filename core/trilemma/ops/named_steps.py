"""Well-known steps by name: each is a row of coefficients for the fused linear step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.numerics.conversion import convert
from trilemma.ops import layout
from trilemma.ops.linear_step import linear_step


def ddim_coefficients(
    alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor, fresh: Tensor, eta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A, B, C of z_s = A z_t + B x̂₀ + C ξ, the DDIM family (2010.02502).

        c₁ = η (σ_s/σ_t) √(1 − ᾱ_t/ᾱ_s),   c₂² = σ_s² − c₁²,   A = c₂/σ_t,   B = α_s − A α_t,   C = c₁

    Args:
        alpha_t, sigma_t, alpha_s, sigma_s: of the two times, float64 tensors of one shape.
        fresh: 1 − ᾱ_t/ᾱ_s, which a process knows without cancellation.
        eta: η in [0, 1]; 0 is deterministic, 1 has the posterior's variance.
    """
    c1 = eta * (sigma_s / sigma_t) * fresh.sqrt()
    A = (sigma_s.square() - c1.square()).clamp_min(0).sqrt() / sigma_t
    return A, alpha_s - A * alpha_t, c1


def ddim_step(
    z: Tensor,
    output: Tensor,
    t: tuple[float, float],
    s: tuple[float, float],
    *,
    parameterization: str = "eps",
    eta: float = 0.0,
    scale: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    step: int = 0,
    indices: Tensor | None = None,
    noise: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One step of DDIM from t to s < t, with classifier-free guidance and clipping in the same pass.

        o = o_∅ + scale (o_c − o_∅),   x̂₀ = clip(p z + q o),   z_s = A z + B x̂₀ + C ξ

    Args:
        z: [B, ...], the state at t.
        output: [B, ...], what the network put out; with `scale` [2·B, ...], the conditional half first.
        t, s: the pairs (α, σ) of the two times; s = (1, 0) lands on the data.
        parameterization: what `output` is: x0, eps, v or score.
        eta: η in [0, 1].
        scale: guidance scale; 1 is no guidance.
        clip: bound of x̂₀.
        seed, step, indices, noise: where ξ comes from, see `linear_step`; `step` is that of the key.
        out: [B, ...], receives the result; it may be z.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        torch.tensor(pair, dtype=torch.float64).unbind() for pair in (t, s)
    )
    fresh = 1 - (alpha_t / alpha_s).square()
    A, B, C = ddim_coefficients(alpha_t, sigma_t, alpha_s, sigma_s, fresh, eta)
    row = torch.zeros(layout.WIDTH, dtype=torch.float64)
    row[layout.A], row[layout.B.start], row[layout.C] = A, B, C
    row[layout.P], row[layout.Q] = convert(parameterization, "x0", alpha_t, sigma_t)
    row[layout.S] = 1
    row[layout.CLIP] = math.inf if clip is None else clip
    row[layout.W][:2] = torch.tensor([1.0, 0.0] if scale is None else [scale, 1 - scale], dtype=torch.float64)
    return _run(z, output, row, step, seed, indices, noise, out)


def sscs_step(
    z: Tensor,
    score: Tensor,
    kick: float,
    flow: float,
    *,
    inverse_mass: float = 4.0,
    seed: int = 0,
    step: int = 0,
    indices: Tensor | None = None,
    noise: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One step of the symmetric splitting integrator in phase space, its Ornstein–Uhlenbeck flows merged into one.

        v ← v + 2Γ·kick·(s + v/M),   then (x, v) ← Ψ (x, v) + L ξ

    With B = `flow`, g = 1/Γ, Γ = 2√M (critical damping) and e = exp(−4gB):

        Ψ = √e [[1 + 2gB, −4g²B], [B, 1 − 2gB]],   L Lᵀ = [[1 − e(1 + 4gB + 8g²B²), −4gB²e],
                                                       [−4gB²e, (Γ²/4)(1 − e) + e(ΓB − 2B²)]]

    Two half-flows with nothing between them are one flow of the sum of their integrals, so a whole integration is a
    flow, then steps of a kick and a merged flow.

    Args:
        z: [B, 2C, ...], position then velocity.
        score: [B, C, ...], s at z.
        kick: ∫β dt of the score's part; 0 leaves the velocity.
        flow: ∫β dt of the flow that follows; 0 is none.
        inverse_mass: 1/M.
        seed, step, indices, noise: where ξ [B, 2C, ...] comes from, see `linear_step`.
        out: like z, receives the result; it may be z.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """
    friction = 2 * math.sqrt(1 / inverse_mass)
    psi, factor = _damped_flow(flow, friction)
    push = torch.tensor([0.0, 2 * friction * kick], dtype=torch.float64)
    kicked = torch.eye(2, dtype=torch.float64)
    kicked[1, 1] += push[1] * inverse_mass
    row = _phase_row(psi @ kicked, psi @ push, factor)
    return _run(z, score, row, step, seed, indices, noise, out)


def euler_maruyama_step(
    z: Tensor,
    score: Tensor,
    delta: float,
    *,
    inverse_mass: float = 4.0,
    noisy: bool = True,
    seed: int = 0,
    step: int = 0,
    indices: Tensor | None = None,
    noise: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One Euler–Maruyama step of the reverse critically damped Langevin diffusion (2112.07068).

        x ← x − δ v/M,   v ← v + δ (x + Γ v/M + 2Γ s) + √(2Γδ) ξ_v,   Γ = 2√M

    Args:
        z: [B, 2C, ...], position then velocity.
        score: [B, C, ...], s at z.
        delta: δ = ∫β dt over the step.
        inverse_mass: 1/M.
        noisy: False leaves the noise out, as the last step of a sampler does.
        seed, step, indices, noise: where ξ [B, 2C, ...] comes from, see `linear_step`; only its second half counts.
        out: like z, receives the result; it may be z.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.
    """
    friction = 2 * math.sqrt(1 / inverse_mass)
    A = torch.tensor(
        [[1, -delta * inverse_mass], [delta, 1 + delta * friction * inverse_mass]], dtype=torch.float64
    )
    B = torch.tensor([0, 2 * friction * delta], dtype=torch.float64)
    C = torch.zeros(2, 2, dtype=torch.float64)
    C[1, 1] = math.sqrt(2 * friction * delta) if noisy else 0
    return _run(z, score, _phase_row(A, B, C), step, seed, indices, noise, out)


def _damped_flow(integral: float, friction: float) -> tuple[Tensor, Tensor]:
    """Ψ and the lower Cholesky factor L of the reverse Ornstein–Uhlenbeck flow over `integral` = ∫β dt."""
    g = 1 / friction
    b = integral
    decay = math.exp(-4 * g * b)
    psi = math.sqrt(decay) * torch.tensor(
        [[1 + 2 * g * b, -4 * g * g * b], [b, 1 - 2 * g * b]], dtype=torch.float64
    )
    # −expm1 and the subtraction of its own series keep xx, of order b³, from cancelling to nothing.
    u = 4 * g * b
    xx = _tail(u) * decay
    xv = -4 * g * b * b * decay
    vv = -math.expm1(-u) * friction**2 / 4 + decay * (friction * b - 2 * b * b)
    lower = torch.zeros(2, 2, dtype=torch.float64)
    if xx > 0:
        lower[0, 0] = math.sqrt(xx)
        lower[1, 0] = xv / lower[0, 0]
        lower[1, 1] = (vv - lower[1, 0].square()).clamp_min(0).sqrt()
    return psi, lower


def _tail(u: float) -> float:
    """e^u − 1 − u − u²/2 to full relative precision."""
    if u > 0.5:
        return math.expm1(u) - u - u * u / 2
    term, total, n = u**3 / 6, 0.0, 3
    while abs(term) > 1e-18 * abs(total):
        total += term
        n += 1
        term *= u / n
    return total


def _phase_row(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    columns = layout.PHASE
    row = torch.zeros(columns.WIDTH, dtype=torch.float64)
    row[columns.A], row[columns.C] = A.flatten(), C.flatten()
    row[columns.B][:2] = B
    row[columns.Q] = row[columns.S] = row[columns.W.start] = 1
    row[columns.CLIP] = math.inf
    return row


def _run(
    z: Tensor,
    output: Tensor,
    row: Tensor,
    step: int,
    seed: int,
    indices: Tensor | None,
    noise: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    out = torch.empty_like(z) if out is None else out
    table = row.expand(step + 1, -1)  # the row's number is the step of the noise's key
    linear_step(out, z, z, output, table, step, seed=seed, indices=indices, noise=noise)
    return out
