"""The fused linear step: one row of a tableau on a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.numerics.normal import STEP, reference_normal
from trilemma.ops import layout
from trilemma.ops.operator import Operator, check_real, compute_dtype, signed


def linear_step(
    out: Tensor,
    z: Tensor,
    base: Tensor,
    output: Tensor | None,
    table: Tensor,
    row: int,
    *,
    history: Tensor | None = None,
    write_slot: int = -1,
    read_slots: Sequence[int] = (),
    seed: int = 0,
    indices: Tensor | None = None,
    noise: Tensor | None = None,
    bad_row: Tensor | None = None,
    others: Sequence[Tensor] = (),
) -> None:
    """Computes one row of a tableau on a batch, in one pass and without a temporary tensor.

    With network outputs o_g, one a branch g, other states z_k, predictions h_j of earlier rows and standard normals ξ:

        m = Σ_g W_g o_g,    u = clip(P z + Q m),    f = R z + S u
        out = A base + B_0 f + Σ_k D_k z_k + Σ_j≥1 B_j h_j + C ξ

    A state of K = 2 components stacks them on dim 1: then A, C and D_k are 2×2, B_j, P and R 2-vectors, and o, f and
    h have half as many channels as the state. The width of the table says which.

    Args:
        out: [G'·B, ...], receives the new state in each of its replicas. It may be `z`, `base`, `output` or a batch
            of itself: all is read before it is written.
        z: [B, ...], the state that the network saw; with the rest, of one dtype. Half types are computed in float32.
        base: [B, ...].
        output: [G·B, ...], the branches one after the other; None where the network was not evaluated, then m = 0.
        table: float64 [rows, layout.Columns(K).WIDTH] on the host, a coefficient a column as `layout` names them.
        row: of the table; also the step of the noise made here.
        history: [H, B, ...], earlier predictions f, a slot each.
        write_slot: of `history`, which receives this row's f after it was read; -1 for none.
        read_slots: of `history`, which B_1, B_2, ... multiply.
        seed: of the noise made here, 0 to 2^64 - 1.
        indices: int64 [B], the samples that the noise made here is for; see `trilemma.engine.noise.keyed_normal`.
        noise: ξ [B, ...], in place of noise made here.
        bad_row: int32 [B]; where it is negative and a sample's new state is not finite, it is set to `row`. NaN
            passes a clip.
        others: further states z_1, z_2, ..., each [B, ...] as base, at most `layout.MAX_OTHERS`.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.
        TrilemmaError: where TRILEMMA_BACKEND=native cannot be kept.
    """
    key = signed(seed)
    # fmt: off
    _LINEAR_STEP(
        out, z, base, output, table, row, history, write_slot, read_slots, key, indices, noise, bad_row, others
    )
    # fmt: on


class StepArguments(NamedTuple):
    """The arguments of `linear_step`, in the order of the operator's schema; see there."""

    out: Tensor
    z: Tensor
    base: Tensor
    output: Tensor | None
    table: Tensor
    row: int
    history: Tensor | None = None
    write_slot: int = -1
    read_slots: Sequence[int] = ()
    seed: int = 0
    indices: Tensor | None = None
    noise: Tensor | None = None
    bad_row: Tensor | None = None
    others: Sequence[Tensor] = ()


def reference_step(x: StepArguments) -> None:
    """Computes `linear_step` in PyTorch: native kernels must equal it, and it runs where there are none."""
    check_step(x)
    (
        out,
        z,
        base,
        output,
        table,
        row,
        history,
        write_slot,
        read_slots,
        seed,
        indices,
        noise,
        bad_row,
        others,
    ) = x
    columns = layout.columns(table.shape[1])
    assert columns is not None
    coefficients = table[row].tolist()
    compute = compute_dtype(z.dtype)
    batch, components = z.shape[0], columns.components
    state = _components(z.to(compute), components)

    if output is None:
        mixture = torch.zeros_like(state[0])
    else:
        branches = output.unflatten(0, (_replicas(output, batch), batch)).to(compute).unbind()
        weights = coefficients[columns.W]
        mixture = weights[0] * branches[0]
        for weight, branch in zip(weights[1:], branches[1:], strict=False):
            mixture = mixture + weight * branch

    u = _combined(coefficients[columns.P], state) + coefficients[columns.Q] * mixture
    if coefficients[columns.CLIP] != math.inf:
        u = u.clamp(-coefficients[columns.CLIP], coefficients[columns.CLIP])
    f = _combined(coefficients[columns.R], state) + coefficients[columns.S] * u

    xi: tuple[Tensor, ...] = ()
    if any(coefficients[columns.C]):
        if noise is None:
            assert indices is not None
            noise = reference_normal(seed, indices, row, math.prod(z.shape[1:]), STEP).view(z.shape)
        xi = _components(noise.to(compute), components)
    bases = _components(base.to(compute), components)
    further = [_components(other.to(compute), components) for other in others]
    lags = [history[slot].to(compute) for slot in read_slots] if history is not None else []
    square = components**2
    parts = []
    for k in range(components):
        line = slice(k * components, (k + 1) * components)
        part = _combined(coefficients[columns.A][line], bases)
        first, *later = coefficients[columns.B][k::components]
        part = part + first * f
        for n, other in enumerate(further):
            matrix = coefficients[columns.D][n * square : (n + 1) * square]
            for coefficient, component in zip(matrix[line], other, strict=True):
                part = part + coefficient * component
        for coefficient, lag in zip(later, lags, strict=False):
            part = part + coefficient * lag
        for coefficient, normals in zip(coefficients[columns.C][line], xi, strict=False):
            part = part + coefficient * normals
        parts.append(part)
    result = torch.cat(parts, 1) if components > 1 else parts[0]

    if write_slot >= 0:
        assert history is not None
        history[write_slot].copy_(f)
    stored = result.to(out.dtype)
    out.unflatten(0, (_replicas(out, batch), batch)).copy_(stored)
    if bad_row is not None:
        finite = stored.isfinite().reshape(batch, math.prod(z.shape[1:])).all(1)
        bad_row.masked_fill_((bad_row < 0) & ~finite, row)


def _components(tensor: Tensor, components: int) -> tuple[Tensor, ...]:
    return tensor.chunk(components, 1) if components > 1 else (tensor,)


def _combined(coefficients: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    result = coefficients[0] * tensors[0]
    for coefficient, tensor in zip(coefficients[1:], tensors[1:], strict=True):
        result = result + coefficient * tensor
    return result


def check_step(x: StepArguments) -> None:
    """Raises UsageError where the arguments of `linear_step` do not fit together."""
    out, z, base, output, table, row, history, write_slot, read_slots, _, indices, noise, bad_row, others = x
    batch, one = z.shape[0] if z.dim() else 0, tuple(z.shape[1:])
    if not z.dim() or not z.is_floating_point():
        raise UsageError(f"z is {z.dtype} of shape {tuple(z.shape)}; expected a floating-point batch")
    columns = layout.columns(table.shape[1]) if table.dim() == 2 and table.dtype == torch.float64 else None
    if columns is None:
        raise UsageError(
            f"table is {table.dtype} of shape {tuple(table.shape)}; expected float64 [rows, {layout.WIDTH}], or "
            f"[rows, {layout.TWO_COMPONENTS.WIDTH}] for two components"
        )
    predicted = one
    if columns.components > 1:
        if not one or one[0] % columns.components:
            raise UsageError(f"z has shape {tuple(z.shape)}; expected two components stacked on dim 1")
        predicted = (one[0] // columns.components, *one[1:])
    _check_shape("base", base, (batch, *one))
    if len(others) > layout.MAX_OTHERS:
        raise UsageError(f"{len(others)} other states were given; a row reads at most {layout.MAX_OTHERS}")
    for other in others:
        _check_shape("one of others", other, (batch, *one))
    replicated = [("out", out, one)] if output is None else [("output", output, predicted), ("out", out, one)]
    for name, tensor, shape in replicated:
        check_real(name, tensor)
        if tuple(tensor.shape[1:]) != shape or not 1 <= _replicas(tensor, batch) <= layout.MAX_BRANCHES:
            raise UsageError(
                f"{name} has shape {tuple(tensor.shape)}; expected G·{batch} samples of shape {shape}, "
                f"G from 1 to {layout.MAX_BRANCHES}"
            )
    if not 0 <= row < len(table):
        raise UsageError(f"row {row} is outside a table of {len(table)} rows")
    slots = 0 if history is None else history.shape[0]
    if history is not None:
        _check_shape("history", history, (slots, batch, *predicted))
    used = [slot for slot in (*read_slots, write_slot) if slot != -1]
    if any(not 0 <= slot < slots for slot in used) or -1 in read_slots or len(read_slots) > layout.MAX_LAGS:
        raise UsageError(
            f"read_slots {list(read_slots)} and write_slot {write_slot} do not fit a history of {slots} slots "
            f"and at most {layout.MAX_LAGS} lags"
        )
    if noise is not None:
        _check_shape("noise", noise, (batch, *one))
    elif indices is None and table[row, columns.C].any():
        raise UsageError("the row adds noise; give indices to make it from, or noise")
    for name, flag, kind in (("indices", indices, torch.int64), ("bad_row", bad_row, torch.int32)):
        if flag is not None and (tuple(flag.shape) != (batch,) or flag.dtype != kind):
            raise UsageError(
                f"{name} is {flag.dtype} of shape {tuple(flag.shape)}; expected {kind} of shape {(batch,)}"
            )


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise UsageError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected a floating-point {shape}"
        )


def _replicas(tensor: Tensor, batch: int) -> int:
    """G of a tensor [G·B, ...]; 0 where B does not divide it. An empty batch has one."""
    samples = tensor.shape[0] if tensor.dim() else 0
    if batch == 0:
        return 1 if samples == 0 else 0
    return samples // batch if samples % batch == 0 else 0


_LINEAR_STEP = Operator(
    "linear_step",
    "Tensor(a!) out, Tensor z, Tensor base, Tensor? output, Tensor table, int row, Tensor(b!)? history, "
    "int write_slot, int[] read_slots, int seed, Tensor? indices, Tensor? noise, Tensor(c!)? bad_row, Tensor[] others",
    "()",
    reference_step,
    check_step,
    record=StepArguments,
)
