"""The energy of states under a model whose answer is a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.resolve import resolved_model
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, log_density


def energy(
    model: str | Path | Denoiser,
    x: Tensor,
    t: float | Tensor | None = None,
    cond: Mapping[str, Any] | None = None,
) -> Tensor:
    """Returns F [B] with p_t(x) ∝ e^{F(x)}, the logarithm of the density up to a constant of t and the conditions.

    Its gradient by x is the score that the model answers with; it can be differentiated where x requires gradients.

    Args:
        model: a model that has an energy, its name or its directory.
        x: states z_t [B, C, H, W], or data.
        t: time of them, a number or one for each [B]; by default the earliest that the network is asked at, where there
            is nearly no noise.
        cond: values of conditions by name, as in `trilemma.sample`; what is missing is the null.

    Raises:
        UsageError: for a model that has no energy, or states, times or conditions that it does not take.
    """
    denoiser = resolved_model(model, x.device)
    expected = tuple(denoiser.shape)
    if denoiser.process.components != 1 or tuple(x.shape[1:]) != expected:
        raise UsageError(
            f"energy: states of shape {tuple(x.shape)} are none of this model; give [B, *{expected}], of a "
            "process of one component"
        )
    times = torch.as_tensor(denoiser.process.earliest_time if t is None else t).to("cpu", torch.float64)
    if times.dim() > 1 or times.numel() not in (1, len(x)) or not bool(((times > 0) & (times <= 1)).all()):
        raise UsageError(
            f"energy: t={t!r} is no time of {len(x)} states; give one above 0 up to 1, or one for each"[:250]
        )
    prepared = denoiser.prepare(cond).to(x.device).take(torch.arange(len(x), device=x.device))
    return log_density(denoiser, x, times.expand(len(x)), prepared)
