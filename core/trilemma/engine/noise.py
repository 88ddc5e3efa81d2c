"""A sampler's noise: drawn by keys, or given as tensors from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from trilemma import ops
from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.numerics.normal import DRAW, PRIOR, STEP


class NoiseSource(Protocol):
    """Standard normals on demand.

    Attributes:
        seed: of noise that a kernel can make by itself, keyed as `keyed_normal` does; None for any other.
    """

    @property
    def seed(self) -> int | None: ...

    def normal(
        self,
        indices: Tensor,
        step: int,
        shape: Sequence[int],
        stream: int = STEP,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Returns ξ [B, *shape] of samples `indices` [B] (int64) at a step of a stream."""
        ...


def keyed_normal(
    seed: int,
    indices: Tensor,
    step: int,
    shape: Sequence[int],
    stream: int = STEP,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Returns standard normals ξ [B, *shape] as `reference_normal` defines them, by the native kernel if there is one.

    A sample's noise depends on its key and its shape's element count alone: never on the batch, on the device's
    layout or on torch's global generator, which is left alone.

    Args:
        seed: 0 to 2^64 - 1.
        indices: int64 [B], from 0 to 2^56 - 1.
        step: 0 to 2^32 - 1.
        shape: of one sample; elements are counted in C order, at most 2^34 of them.
        stream: PRIOR, STEP, PERTURB, LATENT, PATH, or DRAW and above.
        dtype: any floating-point dtype; half types are rounded from float32, float64 is computed in float64.
        device: of the result; None is that of `indices`.
        out: [B, *shape], filled and returned instead of a new tensor; `dtype` and `device` are then its own.

    Raises:
        UsageError: for an argument out of range.
    """
    _check_key(seed, step, stream)
    if out is None:
        out = torch.empty((len(indices), *shape), dtype=dtype, device=device or indices.device)
    elif out.shape != (len(indices), *shape):
        raise UsageError(f"out has shape {tuple(out.shape)}; expected {(len(indices), *shape)}")
    if indices.device != out.device:
        indices = indices.to(out.device, non_blocking=True)
    # One backend for every layout: native and reference agree to rounding only.
    filled = out if out.is_contiguous() else torch.empty_like(out, memory_format=torch.contiguous_format)
    ops.keyed_normal(filled, indices, seed=seed, step=step, stream=stream)
    return out if filled is out else out.copy_(filled)


def fill_normal(noise: NoiseSource, out: Tensor, indices: Tensor, step: int, stream: int) -> None:
    """Fills `out` [B, ...] with a source's noise of samples `indices` [B], without a copy where it is keyed."""
    shape = out.shape[1:]
    if noise.seed is None:
        out.copy_(noise.normal(indices, step, shape, stream, out.dtype, out.device))
    else:
        keyed_normal(noise.seed, indices, step, shape, stream, out=out)


@dataclass(frozen=True)
class KeyedNoise:
    """Noise made from keys: (seed, sample index, step, element) decide every number. `seed` has 64 bits."""

    seed: int = 0

    def __post_init__(self) -> None:
        seed = checked_integer(self.seed, "seed", 0, 2**64 - 1, what="is not a seed")
        object.__setattr__(self, "seed", seed)

    def normal(
        self,
        indices: Tensor,
        step: int,
        shape: Sequence[int],
        stream: int = STEP,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws as `keyed_normal` does, under this seed."""
        return keyed_normal(self.seed, indices, step, shape, stream, dtype, device)


@dataclass(frozen=True)
class InjectedNoise:
    """Noise given as tensors, for exact parity with another library.

    Args:
        prior: ξ of the prior, [N, ...], sample i in row i.
        steps: one [N, ...] a step; a tensor [S, N, ...] will do.
        draws: what the network draws for itself, in the order in which it declares it: each one [N, ...] a row.
    """

    prior: Tensor | None = None
    steps: Sequence[Tensor] | Tensor = field(default=())
    draws: Sequence[Sequence[Tensor] | Tensor] = field(default=())

    @property
    def seed(self) -> None:
        """None: a kernel cannot make it."""
        return None

    def normal(
        self,
        indices: Tensor,
        step: int,
        shape: Sequence[int],
        stream: int = STEP,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Returns the rows `indices` of the tensor given for a step.

        Raises:
            UsageError: where none was given, or one of another shape.
        """
        given = self._given(step, stream)
        if tuple(given.shape[1:]) != tuple(shape):
            raise UsageError(
                f"the injected noise has samples of shape {tuple(given.shape[1:])}; the state needs {tuple(shape)}"
            )
        highest = int(indices.max()) if len(indices) else -1
        if highest >= len(given):
            raise UsageError(
                f"the injected noise holds {len(given)} samples; sample {highest} was asked for, so inject more"
            )
        rows = given.index_select(0, indices.to(given.device))
        return rows.to(dtype=dtype, device=device or indices.device)

    def _given(self, step: int, stream: int) -> Tensor:
        if stream == PRIOR and self.prior is not None:
            return self.prior
        if stream == STEP and step < len(self.steps):
            return self.steps[step]
        place = stream - DRAW
        if 0 <= place < len(self.draws) and step < len(self.draws[place]):
            return self.draws[place][step]
        wanted = {PRIOR: "the prior", STEP: f"step {step}"}.get(stream, f"stream {stream}")
        if place >= 0:
            wanted = f"the network's own draw {place + 1} in row {step + 1}"
            raise UsageError(
                f"no noise was injected for {wanted}; give InjectedNoise(draws=...), one [N, ...] a row"
            )
        raise UsageError(
            f"no noise was injected for {wanted}; InjectedNoise(prior=..., steps=...) has {len(self.steps)} steps"
        )


def _check_key(seed: int, step: int, stream: int) -> None:
    for name, value, bits in (("seed", seed, 64), ("step", step, 32), ("stream", stream, 8)):
        checked_integer(value, name, 0, 2**bits - 1, what="is out of range")
