"""Registers each operator once with torch: its schema, the reference for every device, and its fake.

The native library, where it loads, adds a kernel for CPU tensors to the same operators. That kernel runs what it
supports and hands the rest to the `_reference` twin; `backend` says whether it may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trilemma.errors import TrilemmaError
from trilemma.ops import native, reference

BACKENDS = ("auto", "native", "reference")

_LINEAR_STEP = (
    "(Tensor(a!) out, Tensor z, Tensor base, Tensor output, Tensor table, int row, Tensor(b!)? history, "
    "int write_slot, int[] read_slots, int seed, Tensor? indices, Tensor? noise, Tensor(c!)? bad_row"
)
_KEYED_NORMAL = "(Tensor(a!) out, Tensor indices, int seed, int step, int stream"

_library = torch.library.Library("trilemma", "DEF")


def _register(name: str, schema: str, function: Callable[..., None]) -> None:
    def without_native(*arguments: Any, backend: str = "auto") -> None:
        if backend == "native":
            why = native.load() or "the tensors are not on the CPU"
            raise TrilemmaError(f"TRILEMMA_BACKEND=native, but {name} cannot run natively: {why}")
        function(*arguments)

    def nothing(*arguments: Any, **options: Any) -> None:
        """In place: a fake has no shape to infer."""

    _library.define(f'{name}{schema}, *, str backend="auto") -> ()')
    _library.impl(name, without_native, "CompositeExplicitAutograd")
    torch.library.register_fake(f"trilemma::{name}", nothing, lib=_library)
    _library.define(f"{name}_reference{schema}) -> ()")
    _library.impl(f"{name}_reference", function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"trilemma::{name}_reference", nothing, lib=_library)


_register("linear_step", _LINEAR_STEP, reference.linear_step)
_register("keyed_normal", _KEYED_NORMAL, reference.keyed_normal)
native.load()
