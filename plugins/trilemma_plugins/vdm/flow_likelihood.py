"""The likelihood of a model by its probability-flow equation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.numerics.conversion import convert
from trilemma.numerics.runge_kutta import PAIRS, a_number_a_sample, integrate, root_mean_square
from trilemma_plugins.vdm.time_interval import prior_deviation, time_interval


def log_likelihood(
    model: Denoiser,
    x: Tensor,
    cond: Mapping[str, Tensor],
    generator: torch.Generator,
    tolerance: float = 1e-5,
    probes: int = 1,
    first: float | None = None,
) -> tuple[Tensor, int]:
    """Returns log p(x) [B] in nats of points x [B, ...], and the network's evaluations.

    With y = z/α, r = σ/α and γ = 2 log r the probability-flow equation of every process with one component is
    dy/dγ = ½ r ε̂, along which

        log p(y₀) = log p(y₁) + ∫ ½ r tr(∂ε̂/∂y) dγ     from γ₀ to γ₁,   α₁ y₁ ~ N(0, P²),

    solved together by an adaptive Runge-Kutta pair. The trace is vᵀ (∂ε̂/∂y) v for random signs v, kept along the way
    (Hutchinson): exact in the mean, and exact for each v where the Jacobian is diagonal.

    Args:
        model: on a process of one component, in any parameterization.
        x: points of the continuous data space, not grey levels: see `trilemma_plugins.vdm.dequantization`.
        generator: of the signs, on the CPU.
        tolerance: of the error of each step, of y (root mean square) and of the density over D; see
            `trilemma.numerics.runge_kutta.integrate`. The steps of an image do not depend on the others of the batch.
        probes: vectors v, whose estimates are averaged.
        first: t₀; by default the process's own.

    Raises:
        TrilemmaError: where the network's answers are not finite, or the integration does not arrive.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
        Grathwohl et al., FFJORD, arXiv:1810.01367.
    """
    process, dims = model.process, x[0].numel()
    interval = time_interval(process, first)
    low, high = (-process.log_snr(interval)).tolist()
    signs = [torch.randint(0, 2, x.shape, generator=generator).to(x).mul_(2).sub_(1) for _ in range(probes)]
    evaluations = 0

    def slope(gamma: Tensor, state: Tensor) -> Tensor:
        """Returns the derivatives of y and, over D, of the density, side by side as in the state."""
        nonlocal evaluations
        evaluations += 1
        t = process.time_of_log_snr(-gamma)
        alpha, sigma = process.alpha(t), process.sigma(t)
        p, q = convert(model.parameterization, "eps", alpha, sigma)
        with torch.enable_grad():
            y = state[:, :-1].reshape(x.shape).detach().requires_grad_()
            z = a_number_a_sample(alpha, y) * y
            times = t.to(x.device, time_dtype(x.dtype))
            answer = model(z, times, **cond).to(x.dtype)
            eps = a_number_a_sample(p, y) * z + a_number_a_sample(q, y) * answer
            trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for index, v in enumerate(signs):
                pulled = torch.autograd.grad(eps, y, v, retain_graph=index + 1 < probes)[0]
                trace = trace + (pulled * v).flatten(1).sum(1) / probes
        half = (gamma / 2).exp().div(2).to(x).unsqueeze(1)
        return half * torch.cat([eps.detach().flatten(1), trace.unsqueeze(1) / dims], 1)

    def size(error: Tensor) -> Tensor:
        return torch.maximum(root_mean_square(error[:, :-1]), error[:, -1].abs())

    start = torch.cat([x.flatten(1), torch.zeros_like(x.flatten(1)[:, :1])], 1)
    end, _ = integrate(PAIRS["dopri5"], slope, start, (low, high), (high - low) / 50, tolerance, size)
    if not bool(end.isfinite().all()):
        raise TrilemmaError("the likelihood's equation cannot be integrated; check the model's weights")
    y, change = end[:, :-1].double(), end[:, -1].double()
    deviation = prior_deviation(process) / float(process.alpha(interval)[1])
    square = (y / deviation).square().sum(1)
    prior = -square / 2 - dims * (math.log(deviation) + math.log(2 * math.pi) / 2)
    return prior + change * dims, evaluations
