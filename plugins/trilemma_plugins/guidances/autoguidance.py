"""Guidance by a weaker version of the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.models.loading import load


@dataclass(frozen=True)
class Autoguidance(Guidance):
    """D = D_weak + s (D_model − D_weak), both under the same condition; linear and folded into the step.

    s = 1 is no guidance and evaluates the model alone. Otherwise a step pays one evaluation of each network, and both
    count in the NFE. The weaker model must have the process, the parameterization and the shape of the model.

    Args:
        model: the weaker model: a denoiser, or the name or directory of one for `trilemma.load`.
        scale: s.

    Raises:
        UsageError: for a scale that is not finite, or where there is no model.

    References:
        Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, arXiv:2406.02507.
    """

    model: Denoiser | str | Path | None = None
    scale: float = 2.0

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)] if self.scale == 1 else [dict(cond), dict(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,) if self.scale == 1 else (self.scale, 1.0 - self.scale)

    def networks(self, denoiser: Denoiser) -> dict[int, Denoiser]:
        if self.scale == 1:
            return {}
        if isinstance(self.model, Denoiser):
            weak = self.model
        elif self.model is not None:
            first = next(iter(denoiser.own_tensors()), torch.empty(0))
            weak = load(self.model, device=first.device, dtype=first.dtype)
        else:
            raise UsageError("autoguidance needs a weaker model; give model=name, a directory or a denoiser")
        _check(denoiser, weak)
        return {1: weak}


def _check(model: Denoiser, weak: Denoiser) -> None:
    times = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    checks = {
        "shape": model.shape == weak.shape,
        "parameterization": model.parameterization == weak.parameterization,
        "process": model.process.components == weak.process.components
        and all(
            torch.allclose(a, b)
            for a, b in zip(model.process.moments(times), weak.process.moments(times), strict=True)
        ),
        "conditions": all(weak.conditions[name] == model.conditions.get(name) for name in weak.conditions),
    }
    for what, alike in checks.items():
        if not alike:
            raise UsageError(
                f"autoguidance: the weaker model's {what} is not the model's; give one that agrees"
            )
