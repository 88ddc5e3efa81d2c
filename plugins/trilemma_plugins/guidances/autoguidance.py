"""Guidance by a weaker version of the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Branch, Guidance, Weighted, unguided
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

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if self.scale == 1:
            return unguided(model, cond)
        weak = self._weaker(model)
        _check(model, weak)
        branches = Branch(dict(cond), model), Branch(dict(cond), weak)
        return Weighted(branches, (self.scale, 1.0 - self.scale))

    def _weaker(self, model: Denoiser) -> Denoiser:
        if isinstance(self.model, Denoiser):
            return self.model
        if self.model is None:
            raise UsageError("autoguidance needs a weaker model; give model=name, a directory or a denoiser")
        first = next(iter(model.own_tensors()), torch.empty(0))
        return load(self.model, device=first.device, dtype=first.dtype)


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
