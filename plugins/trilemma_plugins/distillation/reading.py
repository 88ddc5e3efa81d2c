"""The prediction of x₀ of a network in training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.numerics.broadcasting import column
from trilemma.numerics.conversion import convert
from trilemma_plugins.distillation.steps import Scales


def predicted_x0(
    network: nn.Module, denoiser: Denoiser, z: Tensor, t: Tensor, scales: Scales, cond: Mapping[str, Tensor]
) -> Tensor:
    """Returns x̂₀(z_t, t) [B, ...] of a network.

    Args:
        network: the module to call.
        denoiser: the denoiser that it is, or wraps.
        z: states [B, ...].
        t: times [B], float64 on the host.
        scales: of the process at t.
        cond: conditions of the network.

    Raises:
        UsageError: where the parameterization says nothing about x₀ at one of the times.
    """
    p, q = convert(denoiser.parameterization, "x0", scales.alpha, scales.sigma)
    if not bool((p.isfinite() & q.isfinite()).all()):
        raise UsageError(
            f'"{denoiser.parameterization}" says nothing about x0 where no data is left (α = 0); '
            'set denoiser.parameterization = "v" or "x0"'
        )
    output = network(z, t.to(z.device, time_dtype(z.dtype)), **cond)
    return column(p, z) * z + column(q, z) * output.to(z.dtype)
