"""The likelihood of images under a latent model whose autoencoder has a likelihood p(x | code).

With the codes ẑ ~ q(ẑ|x) = N(m, e^l) of an image, y = ẑ + d ε of the first time t₀ of the prior's process, and so
q(y|x) = N(m, e^l + d²),

    −log p(x) ≤ E_q[−log p(x|y) + log q(y|x) − log p(y)].
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.denoiser import Denoiser
from trilemma_plugins.vdm.flow_likelihood import log_likelihood
from trilemma_plugins.vdm.likelihood_bound import diffusion_terms
from trilemma_plugins.vdm.time_interval import time_interval


@torch.no_grad()
def latent_bound_terms(
    model: Denoiser,
    coder: Autoencoder,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    steps: int | None = None,
    first: float | None = None,
) -> dict[str, Tensor]:
    """Draws the terms of the bound [B], nats, of images x [B, C, H, W] once, −log p(y) being bounded, too:

        prior + diffusion − ½ Σ log(1 + e^l/d²) − log p(x|y),

    the first two of `diffusion_terms`; the third is the entropy of q(y|x), less that of the noise d ε.

    Args:
        model: the latent model.
        coder: its autoencoder.
        cond, generator, steps, first: as of `trilemma_plugins.vdm.likelihood_bound.bound_terms`.
    """
    mean, log_variance = coder.posterior(x)
    code = mean + (log_variance / 2).exp() * _normal(mean, generator)
    terms, y, deviation = diffusion_terms(model, code, cond, generator, steps, first)
    entropy = torch.log1p(log_variance.exp() / deviation.square()).flatten(1).sum(1) / 2
    return {**terms, "entropy": -entropy, "reconstruction": -coder.log_likelihood(x, coder.own_code(y))}


@torch.no_grad()
def latent_flow_terms(
    model: Denoiser,
    coder: Autoencoder,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    tolerance: float = 1e-5,
    probes: int = 1,
    first: float | None = None,
) -> dict[str, Tensor]:
    """Draws the terms [B], nats, of images x [B, C, H, W] once, with the density p(y) of the probability-flow equation:

        log q(y|x) − log p(y)   ("divergence")   and   −log p(x|y)   ("reconstruction").

    Their sum is −log p(x) itself, for every draw, where q(y|x) is the posterior of the model, and an upper bound in the
    mean else.

    Args:
        model: the latent model, on a process of one component.
        coder: its autoencoder.
        cond, generator, first: as of `latent_bound_terms`.
        tolerance, probes: as of `trilemma_plugins.vdm.flow_likelihood.log_likelihood`.
    """
    mean, log_variance = coder.posterior(x)
    start = time_interval(model.process, first)[0]
    ratio = (model.process.sigma(start) / model.process.alpha(start)).to(mean)
    variance = log_variance.exp() + ratio.square()
    xi = _normal(mean, generator)
    y = mean + variance.sqrt() * xi
    log_q = -(xi.square() + variance.log() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    log_p, _ = log_likelihood(model, y, cond, generator, tolerance, probes, first)
    return {
        "divergence": log_q.double() - log_p.to(log_q.device),
        "reconstruction": -coder.log_likelihood(x, coder.own_code(y)).double(),
    }


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)
