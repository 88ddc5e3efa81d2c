"""An objective that makes the values of a condition itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trilemma.interfaces.objective import Objective

LEVEL = {"kind": "scalar", "name": "level", "low": 1, "high": 4}


@dataclass(frozen=True)
class Levels(Objective):
    """Teaches the network the level that it is told, drawn anew in each step."""

    name: str = "level"
    told: ClassVar[list[set[str]]] = []

    def provides(self):
        return (self.name,)

    def update_loss(self, update, step):
        Levels.told.append(set(step.cond))
        count = len(step.x0)
        values = 1 + 3 * torch.rand(count, generator=step.generator)
        prepared = step.denoiser.conditions["level"].prepare(values.tolist())
        told = prepared.to(step.x0.device).take(torch.arange(count))
        answer = step.network(step.x0, torch.ones(count), **step.cond, **told)
        return (answer - values.view(-1, 1, 1, 1)).square().mean()
