"""Networks of other libraries as denoisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.denoiser import Condition, Denoiser
from trilemma.errors import UsageError
from trilemma.process import Process

Call = Callable[[Any, Tensor, Tensor, Mapping[str, Tensor]], Any]

CLOCKS = ("t", "index", "log-snr", "sigma")


def wrap(
    network: Callable[..., Any],
    process: Process | str,
    parameterization: str,
    shape: Sequence[int],
    *,
    clock: str = "t",
    call: Call | None = None,
    classes: int = 0,
    null: int | None = None,
) -> Denoiser:
    """Returns a denoiser that asks a module or function of any origin.

        model = trilemma.wrap(unet, "vp:schedule=scaled_linear", "eps", (3, 32, 32), clock="index")
        trilemma.sample(model, 16, sampler="dpmpp-2m", steps=20)

    An answer that is a tuple counts by its first entry, one with a field `sample` (diffusers) by that field.

    Args:
        network: an `nn.Module`, which becomes a part of the denoiser, or a function.
        process: the noising process it was trained on, or its spec.
        parameterization: what it answers with: x0, eps, v, score or flow.
        shape: (C, H, W) of one sample of the data.
        clock: what it is told of the time, a float tensor [B]: "t" in [0, 1]; "index", the row of a process's table
            from 0 to T − 1, with a fraction between rows; "log-snr", log(α²/σ²); "sigma", σ/α.
        call: how it is called, `call(network, z, clock, cond)` with the conditions [B] by name; by default
            `network(z, clock)`, and `network(z, clock, class_labels=…)` where there are classes.
        classes: number of classes that it is told by the condition "class"; 0 for none.
        null: label that means no class; None where there is none.

    Raises:
        UsageError: for a network that cannot be called, an unknown parameterization or clock, or "index" on a process
            without a table.
    """
    if not callable(network):
        raise UsageError(f"{type(network).__name__} cannot be called; give wrap a module or a function")
    built = lookup.process(process) if isinstance(process, str) else process
    if not isinstance(built, Process):
        raise UsageError(f"{type(built).__name__} is no process; give a spec such as 'vp:schedule=linear'")
    if clock not in CLOCKS:
        raise UsageError(f"unknown clock {clock!r}; expected one of {', '.join(CLOCKS)}")
    if clock == "index" and built.table is None:
        raise UsageError(
            f"{type(built).__name__} has no table to index; give clock='t' or a process such as vp"
        )
    conditions = [Condition("class", size=classes, null=null)] if classes else []
    wrapped = Wrapped(network, built, parameterization, shape, clock, call, conditions)
    return wrapped.train(network.training) if isinstance(network, nn.Module) else wrapped.eval()


class Wrapped(Denoiser):
    """A denoiser that asks a module or function; see `wrap` for the arguments."""

    components = None

    def __init__(
        self,
        network: Callable[..., Any],
        process: Process,
        parameterization: str,
        shape: Sequence[int],
        clock: str,
        call: Call | None,
        conditions: Sequence[Condition],
    ) -> None:
        super().__init__(process, parameterization, shape, conditions)
        self.network = network
        self.clock = clock
        self._call = call or _plain_call

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        answer = _tensor_of(self._call(self.network, z, self._told(t), cond))
        expected = (len(z), *self.shape)
        if not isinstance(answer, Tensor) or answer.shape != expected:
            found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise UsageError(
                f"the wrapped network answers with {found}, expected {expected}; give wrap a call= that returns that"
            )
        return answer

    def _told(self, t: Tensor) -> Tensor:
        """Returns the clock [B] at times t [B], in their dtype."""
        if self.clock == "t":
            return t
        if self.clock == "index":
            assert self.process.table is not None
            index = t.double() * self.process.table - 1
            nearest = index.round()
            # A time of the table that was rounded to float32 misses its row by less.
            return torch.where((index - nearest).abs() < 1e-3, nearest, index).to(t)
        log_snr = self.process.log_snr(t.double())
        return (log_snr if self.clock == "log-snr" else (-log_snr / 2).exp()).to(t)


def _plain_call(network: Any, z: Tensor, clock: Tensor, cond: Mapping[str, Tensor]) -> Any:
    if "class" in cond:
        return network(z, clock, class_labels=cond["class"])
    return network(z, clock)


def _tensor_of(answer: Any) -> Any:
    if isinstance(answer, Tensor):
        return answer
    if hasattr(answer, "sample"):
        return answer.sample
    return answer[0] if isinstance(answer, tuple | list) and answer else answer
