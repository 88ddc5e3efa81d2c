"""The likelihood of a model by its probability-flow equation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.numerics.conversion import convert
from trilemma_plugins.vdm.dormand_prince import State, integrate
from trilemma_plugins.vdm.ends import ends, prior_deviation


def log_likelihood(
    model: Denoiser,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    tolerance: float = 1e-5,
    probes: int = 1,
    first: float | None = None,
) -> tuple[Tensor, int]:
    """log p(x) [B] in nats of points x [B, ...], and the network's evaluations.

    With y = z/α, r = σ/α and γ = 2 log r the probability-flow equation of every process with one component is
    dy/dγ = ½ r ε̂, along which

        log p(y₀) = log p(y₁) + ∫ ½ r tr(∂ε̂/∂y) dγ     from γ₀ to γ₁,   α₁ y₁ ~ N(0, P²),

    solved together by an adaptive Runge-Kutta pair. The trace is vᵀ (∂ε̂/∂y) v for random signs v, kept along the way
    (Hutchinson): right on average, and right at once where the Jacobian is diagonal.

    Args:
        model: on a process of one component, in any parameterization.
        x: points of the continuous data space, not grey levels: see `trilemma_plugins.vdm.dequantization`.
        generator: on the CPU, of the signs.
        tolerance: of the error of each step.
        probes: vectors v, whose estimates are averaged.
        first: t₀; by default the process's own.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
        Grathwohl et al., FFJORD, arXiv:1810.01367.
    """
    process, dims = model.process, x[0].numel()
    at_ends = ends(process, first)
    low, high = (-process.log_snr(at_ends)).tolist()
    signs = [torch.randint(0, 2, x.shape, generator=generator).to(x).mul_(2).sub_(1) for _ in range(probes)]

    def slope(gamma: float, state: State) -> State:
        t = process.time_of_log_snr(torch.tensor([-gamma], dtype=torch.float64))
        alpha, sigma = process.alpha(t), process.sigma(t)
        p, q = (float(entry) for entry in convert(model.parameterization, "eps", alpha, sigma))
        half = math.exp(gamma / 2) / 2
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            z = float(alpha) * y
            times = t.to(x.device, time_dtype(x.dtype)).expand(len(x))
            eps = p * z + q * model(z, times, **cond).to(x.dtype)
            trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for index, v in enumerate(signs):
                pulled = torch.autograd.grad(eps, y, v, retain_graph=index + 1 < probes)[0]
                trace = trace + (pulled * v).flatten(1).sum(1) / probes
        return half * eps.detach(), half * trace / dims

    start = (x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
    (y, change), evaluations = integrate(slope, start, low, high, tolerance)
    deviation = prior_deviation(process) / float(process.alpha(at_ends)[1])
    square = (y.double() / deviation).square().flatten(1).sum(1)
    prior = -square / 2 - dims * (math.log(deviation) + math.log(2 * math.pi) / 2)
    return prior + change.double() * dims, evaluations
