"""Networks of other libraries as denoisers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.checks import checked_integer
from trilemma.errors import UsageError, shown
from trilemma.interfaces.condition import LABEL, ClassCondition, Condition, conditions_from
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process

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
    classes: int | Sequence[str] = 0,
    null: int | None = None,
    conditions: Sequence[Condition | Mapping[str, Any]] = (),
) -> Denoiser:
    """Returns a denoiser that asks a module or function of any origin.

        model = trilemma.wrap(unet, "vp:schedule=scaled_linear", "eps", (3, 32, 32), clock="index")
        trilemma.sample(model, 16, sampler="dpmpp-2m", steps=20)

    The first entry of a tuple counts as the answer, and so does the field `sample` of an object that has one
    (diffusers). Modules keep their weights, modes, device and dtype. A module is found behind its bound method or a
    `functools.partial` of it, too; any other function gets the device and dtype that the request gives.

    Args:
        network: an `nn.Module`, which becomes a part of the denoiser, or a function. It must leave its input as it is.
        process: the noising process it was trained on, or its spec.
        parameterization: of its answer: x0, eps, v, score or flow.
        shape: (C, H, W) of one sample of the data.
        clock: the form in which it gets the time, a float tensor [B]: "t" in [0, 1]; "index", the row of a process's
            table from 0 to T − 1, with a fraction between rows; "log-snr", log(α²/σ²); "sigma", σ/α.
        call: how it is called, `call(network, z, clock, cond)` with the tensors of the conditions [B, ...] by keyword;
            by default `network(z, clock)`, with `class_labels=…` where there are classes and the other tensors under
            their own keywords. A network that looks its time up in a table wants
            `lambda network, z, clock, cond: network(z, clock.long())`.
        classes: number of its classes, or their names; 0 for none.
        null: label that means no class; None where there is none.
        conditions: further conditions, or their tables as `conditions_from` takes them.

    Raises:
        UsageError: for a network that cannot be called, an impossible shape or number of classes, an unknown
            parameterization or clock, "index" on a process without a table, or a noise level that is infinite at t = 1.
    """
    if not callable(network) or isinstance(network, type):
        kind = f"the class {network.__name__}" if isinstance(network, type) else type(network).__name__
        raise UsageError(f"{kind} cannot be called on states; give wrap a module or a function")
    if call is not None and not callable(call):
        raise UsageError(
            f"call={shown(call)} cannot be called; give wrap a function of (network, z, clock, cond)"
        )
    built = lookup.process(process) if isinstance(process, str) else process
    if not isinstance(built, Process):
        raise UsageError(f"{type(built).__name__} is no process; give a spec such as 'vp:schedule=linear'")
    if clock not in CLOCKS:
        raise UsageError(f"unknown clock {clock!r}; expected one of {', '.join(CLOCKS)}")
    if clock == "index" and built.table is None:
        raise UsageError(
            f"{type(built).__name__} has no table to index; give clock='t' or a process such as vp"
        )
    if (
        clock in ("log-snr", "sigma")
        and not built.log_snr(torch.ones(1, dtype=torch.float64)).isfinite().all()
    ):
        raise UsageError(
            f"{type(built).__name__} has an infinite {clock} at t = 1, which no network can be told; give clock='t'"
        )
    return Wrapped(
        network,
        built,
        parameterization,
        _checked_shape(shape),
        clock,
        call,
        conditions_from([*_classes(classes, null), *conditions]),
    )


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
        module = _module_of(network)
        # Of a method or a partial, as a part whose weights count.
        self.owner = None if module is network else module
        self.clock = clock
        self._call = call or _plain_call
        # The module's own flag alone: its parts may be in other modes.
        self.training = module is not None and module.training

    @property
    def described_as(self) -> str:
        """Name in records: the network, its parameterization and its clock."""
        named = self.owner if self.owner is not None else self.network
        name = getattr(self.network, "__qualname__", type(named).__name__)
        return f"wrap({name}, {self.parameterization}, clock={self.clock})"

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        watched = not torch.compiler.is_compiling() and not z.is_inference()
        version = z._version if watched else 0
        answer = _tensor_of(self._call(self.network, z, self._told(t), cond))
        if watched and z._version != version:
            raise UsageError(
                "the wrapped network changes its input in place, which the sampler still needs; give wrap a call= that "
                "hands it z.clone()"
            )
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
            near = max(1e-3, self.process.table * 2**-22)
            return torch.where((index - nearest).abs() < near, nearest, index).to(t)
        log_snr = self.process.log_snr(t.double())
        return (log_snr if self.clock == "log-snr" else (-log_snr / 2).exp()).to(t)


def _module_of(network: Any) -> nn.Module | None:
    """Returns the module that is called, a bound method of which is, or a partial of either."""
    while isinstance(network, functools.partial):
        network = network.func
    owner = network if isinstance(network, nn.Module) else getattr(network, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Iterable) or not (sizes := tuple(shape)):
        raise UsageError(
            f"shape={shown(shape)} is no shape; give (C, H, W) of one sample, such as (3, 32, 32)"
        )
    return tuple(checked_integer(size, f"shape[{i}]", 1, 2**31 - 1) for i, size in enumerate(sizes))


def _classes(classes: int | Sequence[str], null: int | None) -> list[Condition]:
    names = () if isinstance(classes, int) or not isinstance(classes, Sequence) else tuple(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in names):
        raise UsageError(
            f"classes={shown(classes)} is no number of classes and no list of names; give one of them"
        )
    size = len(names) or checked_integer(classes, "classes", 0, 2**31 - 1)
    if not size:
        if null is not None:
            raise UsageError(f"null={shown(null)} is a label and there are no classes; give classes= too")
        return []
    label = None if null is None else checked_integer(null, "null", 0, 2**31 - 1)
    return [ClassCondition(LABEL, size=size, null=label, names=names)]


def _plain_call(network: Any, z: Tensor, clock: Tensor, cond: Mapping[str, Tensor]) -> Any:
    others = {name: tensor for name, tensor in cond.items() if name != LABEL}
    if LABEL in cond:
        return network(z, clock, class_labels=cond[LABEL], **others)
    return network(z, clock, **others)


def _tensor_of(answer: Any) -> Any:
    if isinstance(answer, Tensor):
        return answer
    if hasattr(answer, "sample"):
        return answer.sample
    return answer[0] if isinstance(answer, tuple | list) and answer else answer
