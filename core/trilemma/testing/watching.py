"""Watches a run: which operators the engine calls between the calls of the network."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trilemma.interfaces.denoiser import Denoiser


class Watch(TorchDispatchMode):
    """Every operator outside the network, by name, in order; "network" stands for a call of it.

    Attributes:
        calls: the names.
        evaluations: calls of the network.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[str] = []
        self.evaluations = 0
        self._inside = 0
        self._hooks = [
            denoiser.register_forward_pre_hook(self._enter),
            denoiser.register_forward_hook(self._leave),
        ]

    def _enter(self, *_: Any) -> None:
        self._inside += 1
        self.evaluations += 1
        self.calls.append("network")

    def _leave(self, *_: Any) -> None:
        self._inside -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._inside:
            fused = func is torch.ops.trilemma.linear_step.default
            self.calls.append("linear_step" if fused else func.__name__)
        return func(*args, **(kwargs or {}))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    @property
    def loop(self) -> list[str]:
        """From the first call of the network to the last fused step."""
        last = len(self.calls) - self.calls[::-1].index("linear_step")
        return self.calls[self.calls.index("network") : last]
