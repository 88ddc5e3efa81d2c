"""One update of a run: the parameters that learn, their optimizer, and the scale of their loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trilemma.interfaces.update import Update
from trilemma.train.checkpoint import optimizer_tensors, restore_optimizer
from trilemma.train.optimizer import Optimizer
from trilemma.train.parts import Parts
from trilemma.train.precision import Precision
from trilemma.train.processes import Processes
from trilemma.train.schedule import learning_rate


class Learner:
    """An update with its optimizer.

    Args:
        update: of the objective.
        parts: the networks.
        settings: of its optimizer.
        precision: of the forward pass; the scale of a float16 loss is this update's own.
        processes: whose gradients are averaged.
    """

    def __init__(
        self,
        update: Update,
        parts: Parts,
        settings: Optimizer,
        precision: Precision,
        processes: Processes,
    ) -> None:
        self.update, self.precision = update, precision
        self._settings, self._processes = settings, processes
        self._parameters = parts.parameters(update)
        self.optimizer = settings.build(self._parameters)

    def set_rate(self, step: int, steps: int, factor: float = 1.0) -> None:
        """Sets the learning rate of a step, times a factor."""
        chosen = self._settings
        rate = factor * learning_rate(step, steps, chosen.warmup, chosen.lr, chosen.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def learn(self) -> Tensor:
        """Updates the weights by the gradients, averaged over the processes and clipped; returns their norm before."""
        self._processes.average_gradients(self._parameters)
        self.precision.unscale(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Returns the state of the optimizer."""
        return optimizer_tensors(self.optimizer)

    def restore(self, tensors: Mapping[str, Tensor], precision: dict[str, Any]) -> None:
        """Restores the state of the optimizer and of the scale."""
        restore_optimizer(self.optimizer, tensors)
        self.precision.load_state_dict(precision)
