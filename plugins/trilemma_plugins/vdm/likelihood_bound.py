"""The variational bound of any model with one component, estimated on images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.denoiser import Denoiser
from trilemma.process import Process
from trilemma.spacing import spaced_times
from trilemma_plugins.vdm.bound import discrete_weight, noise_error, prior_kl, reconstruction
from trilemma_plugins.vdm.ends import ends, prior_deviation
from trilemma_plugins.vdm.levels import LEVELS
from trilemma_plugins.vdm.times import spread_times


@torch.no_grad()
def bound_terms(
    model: Denoiser,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    steps: int | None = None,
    levels: int = LEVELS,
) -> dict[str, Tensor]:
    """One draw of the terms "prior", "diffusion" and "reconstruction" [B], nats, of pixels x [B, ...] in [−1, 1].

    In continuous time γ is drawn uniformly between its ends, L∞ = ½ (γ₁ − γ₀) E ‖ε − ε̂‖²: the bound does not depend on
    the schedule, so that none of its slope is needed and all processes pay the same variance. With `steps` it is the
    bound of that many steps, evenly spaced in time; a process on a table has no other, by default that of its T − 1.

    Args:
        model: on a process of one component.
        generator: on the CPU.
    """
    process = model.process
    if process.table is not None and steps is None:
        steps = process.table - 1
    if steps is None:
        t, weight = _continuous(process, len(x), generator)
    else:
        t, weight = _discrete(process, len(x), steps, generator)
    noise = _normal(x, generator)
    alpha, sigma = process.scales(t, x)
    prediction = model(alpha * x + sigma * noise, t.to(x.device, torch.float32), **cond).to(x.dtype)
    error = noise_error(prediction, model.parameterization, x, noise, alpha, sigma)
    at_ends = ends(process)
    alpha0, alpha1 = process.alpha(at_ends).to(x)
    sigma0, sigma1 = process.sigma(at_ends).to(x)
    z0 = alpha0 * x + sigma0 * _normal(x, generator)
    return {
        "prior": prior_kl(x, alpha1, sigma1, prior_deviation(process)),
        "diffusion": weight.to(error) * error,
        "reconstruction": reconstruction(x, z0, alpha0, sigma0, levels),
    }


def _continuous(process: Process, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    low, high = -process.log_snr(ends(process))
    gamma = low + (high - low) * spread_times(batch, generator)
    return process.time_of_log_snr(-gamma), (high - low).expand(batch) / 2


def _discrete(process: Process, batch: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if process.table is None:
        first, last = ends(process).tolist()
        times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    else:
        times = spaced_times(process, steps + 1, "linspace")[:-1].flip(0)
    gamma = -process.log_snr(times)
    drawn = (spread_times(batch, generator) * steps).long()
    return times[drawn + 1], discrete_weight(gamma[drawn], gamma[drawn + 1], steps)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)
