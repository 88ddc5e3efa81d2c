"""The operators as Python calls them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError, UsageError
from trilemma.ops import reference
from trilemma.ops.registration import BACKENDS


def linear_step(
    out: Tensor,
    z: Tensor,
    base: Tensor,
    output: Tensor,
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
) -> None:
    """One row of a tableau on a batch, in one pass and without a temporary tensor.

    With network outputs o_g, one a branch g, predictions h_j of earlier rows and standard normals ξ:

        m = Σ_g W_g o_g,    u = clip(P z + Q m),    f = R z + S u,    out = A base + B_0 f + Σ_j≥1 B_j h_j + C ξ

    Args:
        out: [G'·B, ...], receives the new state in each of its replicas. It may be `z`, `base`, `output` or a batch
            of itself: all is read before it is written.
        z: [B, ...], the state that the network saw; with the rest, of one dtype. Half types are computed in float32.
        base: [B, ...].
        output: [G·B, ...], the branches one after the other.
        table: float64 [rows, layout.WIDTH] on the host, a coefficient a column as `layout` names them.
        row: of the table; also the step of the noise made here.
        history: [H, B, ...], earlier predictions f, a slot each.
        write_slot: of `history`, which receives this row's f after it was read; -1 for none.
        read_slots: of `history`, which B_1, B_2, ... multiply.
        seed: of the noise made here, 0 to 2^64 - 1.
        indices: int64 [B], the samples that the noise made here is for; see `trilemma.noise.keyed_normal`.
        noise: ξ [B, ...], in place of noise made here.
        bad_row: int32 [B]; where it is negative and a sample's new state is not finite, it is set to `row`. NaN
            passes a clip.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.
        TrilemmaError: where TRILEMMA_BACKEND=native cannot be kept.
    """
    if torch.is_grad_enabled() and (z.requires_grad or base.requires_grad or output.requires_grad):
        raise UsageError("linear_step has no gradient; call it under torch.no_grad()")
    if seed >= 1 << 63:
        seed -= 1 << 64
    arguments = (
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
    )
    try:
        torch.ops.trilemma.linear_step.default(*arguments, backend=requested_backend())
    except RuntimeError as error:
        reference.check_linear_step(*arguments)
        raise _without_place(error) from error


def keyed_normal(out: Tensor, indices: Tensor, *, seed: int, step: int, stream: int) -> None:
    """Fills `out` [B, ...] with the standard normals of samples `indices` [B]; see `trilemma.noise.keyed_normal`."""
    if seed >= 1 << 63:
        seed -= 1 << 64
    try:
        torch.ops.trilemma.keyed_normal.default(out, indices, seed, step, stream, backend=requested_backend())
    except RuntimeError as error:
        reference.check_keyed_normal(out, indices)
        raise _without_place(error) from error


def requested_backend() -> str:
    """TRILEMMA_BACKEND: "auto" (native where it can), "native" (or an error) or "reference"."""
    backend = os.environ.get("TRILEMMA_BACKEND") or "auto"
    if backend not in BACKENDS:
        raise UsageError(f"TRILEMMA_BACKEND={backend} is unknown; choose from {', '.join(BACKENDS)}")
    return backend


def _without_place(error: RuntimeError) -> Exception:
    """A refusal of the native library without the place in its sources; any other error as it is."""
    _, refusal, reason = str(error).partition("TRILEMMA_BACKEND")
    return TrilemmaError(refusal + reason.splitlines()[0]) if refusal else error
