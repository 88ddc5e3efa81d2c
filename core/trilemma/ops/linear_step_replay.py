"""The fused step as a CUDA graph captures it: what changes between replays lies on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.ops import layout
from trilemma.ops.linear_step import StepArguments, reference_step
from trilemma.ops.operator import Operator


def linear_step_replay(
    out: Tensor,
    z: Tensor,
    base: Tensor,
    output: Tensor | None,
    table: Tensor,
    row: Tensor,
    seed: Tensor,
    *,
    history: Tensor | None = None,
    write_slot: int = -1,
    read_slots: Sequence[int] = (),
    indices: Tensor | None = None,
    noise: Tensor | None = None,
    bad_row: Tensor | None = None,
    others: Sequence[Tensor] = (),
) -> None:
    """Computes `trilemma.ops.linear_step`; the kernel, not the host, reads table, row and seed.

    A captured loop can therefore be replayed with other coefficients, at another step and with fresh noise. The
    reference reads them on the host, and cannot be captured.

    Args:
        out, z, base, output, history, write_slot, read_slots, noise, bad_row, others: as in `linear_step`.
        table: float32 [rows, layout.WIDTH] beside z, made once from the float64 table.
        row: int64, one element beside z: the row of the table, and the step of the noise. Its range is not checked.
        seed: int64, one element beside z: the bits of a seed of 0 to 2^64 - 1.
        indices: int64 [B]; these or `noise` must be given even where the row adds no noise.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.
        TrilemmaError: where TRILEMMA_BACKEND=native cannot be kept.
    """
    _LINEAR_STEP_REPLAY(
        *(out, z, base, output, table, row, history, write_slot, read_slots, seed),
        *(indices, noise, bad_row, others),
    )


class ReplayArguments(NamedTuple):
    """The arguments of `linear_step_replay`, in the order of the operator's schema; see there."""

    out: Tensor
    z: Tensor
    base: Tensor
    output: Tensor | None
    table: Tensor
    row: Tensor
    history: Tensor | None
    write_slot: int
    read_slots: Sequence[int]
    seed: Tensor
    indices: Tensor | None
    noise: Tensor | None
    bad_row: Tensor | None
    others: Sequence[Tensor]


def _reference(x: ReplayArguments) -> None:
    """`linear_step_replay` in PyTorch."""
    _check(x)
    host = {"table": x.table.double().cpu(), "row": int(x.row), "seed": int(x.seed)}
    reference_step(StepArguments(**{**x._asdict(), **host}))


def _check(x: ReplayArguments) -> None:
    if x.table.dim() != 2 or layout.columns(x.table.shape[1]) is None or x.table.dtype != torch.float32:
        raise UsageError(
            f"table is {x.table.dtype} of shape {tuple(x.table.shape)}; expected float32 [rows, {layout.WIDTH}]"
        )
    for name, number in (("row", x.row), ("seed", x.seed)):
        if number.numel() != 1 or number.dtype != torch.int64:
            raise UsageError(f"{name} is {number.dtype} of shape {tuple(number.shape)}; expected one int64")
    if x.indices is None and x.noise is None:
        raise UsageError("the row may add noise; give indices to make it from, or noise")


_LINEAR_STEP_REPLAY = Operator(
    "linear_step_replay",
    "Tensor(a!) out, Tensor z, Tensor base, Tensor? output, Tensor table, Tensor row, Tensor(b!)? history, "
    "int write_slot, int[] read_slots, Tensor seed, Tensor? indices, Tensor? noise, Tensor(c!)? bad_row, "
    "Tensor[] others",
    "()",
    _reference,
    _check,
    record=ReplayArguments,
)
