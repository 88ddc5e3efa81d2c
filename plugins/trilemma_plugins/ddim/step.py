"""One step of DDIM by itself."""

from __future__ import annotations

import torch

from trilemma.engine.row_step import RowStep
from trilemma.interfaces.process import Process
from trilemma_plugins.ddim.sampler import DDIM


def ddim_step(
    process: Process,
    t: float,
    s: float,
    *,
    parameterization: str = "eps",
    eta: float = 0.0,
    clip: float | None = None,
    scale: float | None = None,
) -> RowStep:
    """Returns the step of DDIM from t to s < t, with classifier-free guidance and clipping in the same pass.

        o = o_∅ + scale (o_c − o_∅),   x̂₀ = clip(p z + q o),   z_s = A z + B x̂₀ + C ξ

    A, B and C are those of the plan of `trilemma_plugins.ddim.sampler.DDIM`.

    Args:
        process: of one component.
        t, s: times; s = 0 lands on the data.
        parameterization: of the network's output: x0, eps, v, score or flow.
        eta: η in [0, 1].
        clip: bound of x̂₀; None for none.
        scale: guidance scale, for outputs [2·B, ...] with the conditional half first; 1 is no guidance, None one
            output.

    Raises:
        UsageError: for an option out of range.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502.
    """
    plan = DDIM(eta, clip=clip).plan(process, torch.tensor([t, s], dtype=torch.float64))
    weights = (1.0,) if scale is None else (scale, 1 - scale)
    return RowStep(process, plan.rows[0], plan.parameterization, parameterization, clip=clip, weights=weights)
