"""The variational bound of any model, estimated on images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import noise_error
from trilemma_plugins.vdm.bound import reconstruction
from trilemma_plugins.vdm.grey_levels import LEVELS
from trilemma_plugins.vdm.importance_sampling import draw_continuous_times, draw_discrete_times
from trilemma_plugins.vdm.time_interval import time_interval


@torch.no_grad()
def bound_terms(
    model: Denoiser,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    steps: int | None = None,
    first: float | None = None,
    levels: int = LEVELS,
) -> dict[str, Tensor]:
    """Draws the terms "prior", "diffusion" and "reconstruction" [B], nats, of pixels x [B, ...] in [−1, 1] once:

        −log p(x) ≤ KL(q(z₁|x) ‖ p(z₁)) + ½ ∫ (G Gᵀ)_KK E‖s − ∇ log q(z_t|x)‖² dt + E[−log p(x|z₀)],

    where the gradient is by the last of K components, the one that noise enters. A component that is independent of x
    at t = 0, such as a velocity, is integrated out in q and costs nothing. In continuous time one component has
    L∞ = ½ (γ₁ − γ₀) E ‖ε − ε̂‖² for γ uniform between its ends: the bound does not depend on the schedule. With `steps`
    it is the bound of that many steps, evenly spaced in time. A process on a table has only this bound, by default of
    its T − 1 steps.

    Args:
        model: in any parameterization.
        generator: on the CPU.
        steps: T, on processes of one component.
        first: t₀; by default the process's own. Any t₀ gives a bound.
    """
    terms, y, deviation = diffusion_terms(model, x, cond, generator, steps, first)
    return {**terms, "reconstruction": reconstruction(x, y, torch.ones_like(deviation), deviation, levels)}


def diffusion_terms(
    model: Denoiser,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    steps: int | None = None,
    first: float | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Draws the terms "prior" and "diffusion" [B] of data x [B, ...] once; with them y = x + d ε, drawn at t₀, and d.

    With q(y|x) = N(x, d²) and D numbers x, their sum is a bound of KL(q(y|x) ‖ p), and

        E_q[−log p(y)] ≤ prior + diffusion + ½ D log(2πe d²).

    Args:
        model, cond, generator, steps, first: as of `bound_terms`.
        x: of any kind, such as codes.
    """
    process = model.process
    if process.table is not None and steps is None:
        steps = process.table - 1
    interval = time_interval(process, first)
    if steps is None:
        t, weight = draw_continuous_times(process, interval, len(x), generator)
    else:
        t, weight = draw_discrete_times(process, interval, len(x), steps, generator)
    z, noise = _noised(process, t, x, generator)
    prediction = model(z, t.to(x.device, time_dtype(x.dtype)), **cond).to(x.dtype)
    alpha, sigma = (level.to(x).view(-1, *[1] * (x.dim() - 1)) for level in process.last_component(t)[1:])
    error = noise_error(prediction, model.parameterization, x, noise, alpha, sigma)
    earliest, latest = interval
    y, deviation = _pixels(process, earliest, _noised(process, earliest.expand(len(x)), x, generator)[0])
    return {"prior": _prior(process, latest, x), "diffusion": weight.to(error) * error}, y, deviation


def _noised(process: Process, t: Tensor, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z_t [B, K·C, ...] of x [B, C, ...] at t [B], and the noise ε_K [B, C, ...] of its last component."""
    K = process.components
    noise = torch.randn((K, *x.shape), generator=generator, dtype=x.dtype, device="cpu").to(x.device)
    mean, cov = process.moments(t)
    factor = torch.linalg.cholesky(cov)
    # Shape [B, K, 1 + K].
    table = torch.cat([mean.unsqueeze(-1), factor], -1).to(x)
    z = torch.einsum("bij,jb...->bi...", table, torch.cat([x.unsqueeze(0), noise]))
    return z.flatten(1, 2), noise[-1]


def _pixels(process: Process, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Returns y = d² μᵀ Σ⁻¹ z, the pixels x + d ε given by states z [B, K·C, ...], and d: d⁻² = μᵀ Σ⁻¹ μ."""
    mean, cov = process.moments(t)
    weights = torch.linalg.solve(cov, mean)
    variance = 1 / (weights @ mean)
    parts = z.unflatten(1, (process.components, -1))
    return torch.einsum("i,bi...->b...", (variance * weights).to(z), parts), variance.sqrt().to(z)


def _prior(process: Process, t: Tensor, x: Tensor) -> Tensor:
    """KL(N(μ x, Σ) ‖ N(0, P)) = ½ Σ [x² μᵀP⁻¹μ + tr P⁻¹Σ − K − log |P⁻¹Σ|] [B] at a time t."""
    mean, cov = process.moments(t)
    prior = process.prior_covariance()
    relative = torch.linalg.solve(prior, cov)
    steady = relative.trace() - process.components - torch.linalg.slogdet(relative)[1]
    slope = mean @ torch.linalg.solve(prior, mean)
    return (slope.to(x) * x.square() + steady.to(x)).flatten(1).sum(1) / 2
