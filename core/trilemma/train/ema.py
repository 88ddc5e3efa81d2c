"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """θ̄ ← d θ̄ + (1 − d) θ after every step, with d = min(decay, (1 + k)/(w + k)) while the average is young.

    Args:
        module: the network; its parameters and persistent buffers are averaged in float32.
        decay: the limit d in [0, 1).
        warmup: w ≥ 1; with 1 the decay is d from the first step.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: int = 10) -> None:
        self.decay, self.warmup = decay, warmup
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Updates the averages after optimizer step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (self.warmup + step))
        current = module.state_dict()
        floating = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        averages = [self.tensors[name] for name in floating]
        torch._foreach_lerp_(averages, [current[name].detach() for name in floating], 1 - decay)
        for name in self.tensors.keys() - set(floating):
            self.tensors[name].copy_(current[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the averaged tensors by name."""
        return self.tensors

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores averaged tensors that `state_dict` gave."""
        for name, tensor in self.tensors.items():
            tensor.copy_(state[name])
