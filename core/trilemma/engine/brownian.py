"""Noise keyed by time: the increments of one Brownian path, which does not know the steps it is read at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from trilemma.engine.noise import KeyedNoise, keyed_normal
from trilemma.engine.program import Program
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.numerics.normal import PATH, STEP
from trilemma.ops.operator import compute_dtype

# Levels of halving of [2^e, 2^(e+1)]: a step is cut to whole cells, of 2^-16 of such an octave.
LEVELS = 16
_CELLS = 1 << LEVELS
# Exponents of the first octave, below which the path has one increment from 0 on, and of the last.
FIRST, LAST = -40, 60

# A point of the clock: an exponent e and a number of cells q, τ = 2^e (1 + q/2^16).
Point: TypeAlias = tuple[int, int]
_ZERO: Point = (FIRST - 1, 0)


@dataclass(frozen=True)
class BrownianNoise:
    """Noise ξ = (W_b − W_a)/√(b − a) of a row that goes from a to b, with one path W a (seed, sample, element).

    The clock is the signal-to-noise ratio τ = α²/σ². There the noise of an exact step of the reverse-time equation from
    t to s is an increment of W: (σ_s²/α_s)(W_b − W_a), with the variance σ_s² (1 − e^(−2h)) of `dpmpp-2m-sde`, λ =
    log(α/σ). Any other step whose noise is C ξ, such as one of Euler–Maruyama, has the right law and differs from the
    integral along the path by terms of higher order in its length, so that it converges to the same path with order 1.

    W is the sum of the Schauder functions of each octave [2^e, 2^(e+1)] of τ down to cells of 2^-16 of it. Each has a
    normal of its own, keyed by (seed, sample, octave, node, element): nothing is kept, and no step knows of another.
    A row that moves by no cell, or over what an earlier row has read, takes the keyed noise of its number, which is
    independent of the path; so does all noise but that of rows.

    Attributes:
        keyed: of the seed.
        spans: of each row, the points that it goes between; None for keyed noise.
    """

    keyed: KeyedNoise
    spans: tuple[tuple[Point, Point] | None, ...]

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
        """Returns ξ [B, *shape] of samples `indices` [B] (int64) in a row."""
        span = self.spans[step] if stream == STEP and step < len(self.spans) else None
        if span is None:
            return self.keyed.normal(indices, step, shape, stream, dtype, device)
        size, where = (len(indices), *shape), device or indices.device
        drawn = torch.empty(size, dtype=compute_dtype(dtype), device=where)
        total = torch.zeros_like(drawn)
        for key, weight in increment(*span):
            keyed_normal(self.keyed.seed, indices, key, shape, PATH, out=drawn)
            total.add_(drawn, alpha=weight)
        return total.to(dtype)


def brownian_noise(seed: int, process: Process, program: Program | None, times: Tensor) -> BrownianNoise:
    """Returns the noise of a program's rows, or of the steps between `times` where there is no program.

    Raises:
        UsageError: for a process of more than one component, whose states have no one clock.
    """
    if process.components > 1:
        raise UsageError(
            f"noise='brownian' needs a process of one component; {type(process).__name__} has {process.components}, "
            "leave noise= out"
        )
    if program is None:
        starts, ends, noisy = times[:-1], times[1:], [True] * (len(times) - 1)
    else:
        rows = range(len(program))
        starts = torch.tensor(program.starts, dtype=torch.float64)
        ends = torch.tensor([program.time_after(row) for row in rows], dtype=torch.float64)
        noisy = list(program.noisy)
    return BrownianNoise(KeyedNoise(seed), _spans(_points(process, starts), _points(process, ends), noisy))


def _points(process: Process, times: Tensor) -> list[Point | None]:
    alpha, sigma = process.alpha_sigma(times)
    return [point(tau) for tau in (alpha / sigma).square().tolist()]


def _spans(
    starts: Iterable[Point | None], ends: Iterable[Point | None], noisy: Iterable[bool]
) -> tuple[tuple[Point, Point] | None, ...]:
    """The points that each row goes between, where it goes on from there and no earlier row was beyond its start."""
    found: list[tuple[Point, Point] | None] = []
    reached = _ZERO
    for a, b, adds in zip(starts, ends, noisy, strict=True):
        span = (a, b) if adds and a is not None and b is not None and reached <= a < b else None
        if span is not None:
            reached = span[1]
        found.append(span)
    return tuple(found)


def point(tau: float) -> Point | None:
    """Returns the point of the grid next to τ ≥ 0; None beyond its end, where nothing is left of the noise."""
    if not tau < 2.0**LAST:
        return None
    mantissa, exponent = math.frexp(tau)
    if exponent - 1 < FIRST or tau == 0:
        return _ZERO
    cells = round((2 * mantissa - 1) * _CELLS)
    return (exponent, 0) if cells == _CELLS else (exponent - 1, cells)


@lru_cache(4096)
def increment(a: Point, b: Point) -> tuple[tuple[int, float], ...]:
    """Returns the keys of the normals that make (W_b − W_a)/√(b − a), with their weights, whose squares sum to 1."""
    parts: dict[int, float] = {}
    for octave in range(a[0], b[0] + 1):
        first = a[1] if octave == a[0] else 0
        last = b[1] if octave == b[0] else _CELLS
        for cells, sign in ((last, 1.0), (first, -1.0)):
            for key, weight in _value(octave, cells):
                parts[key] = parts.get(key, 0.0) + sign * weight
    kept = {key: weight for key, weight in parts.items() if weight}
    length = math.sqrt(math.fsum(weight * weight for weight in kept.values()))
    return tuple((key, weight / length) for key, weight in kept.items())


def _value(octave: int, cells: int) -> list[tuple[int, float]]:
    """Weights of the normals in W at a point, less W where the octave begins: √L (u ξ_0 + Σ_l s_l(u) ξ_l).

    s_l is the tent of height 2^(−(l+1)/2) over the cell of the l-th halving that u lies in. The clock from 0 up
    to the first octave counts as one that is not halved.
    """
    if not cells:
        return []
    root = 2.0 ** ((octave if octave >= FIRST else FIRST) / 2)
    first = (octave - FIRST + 1) << LEVELS
    found = [(first, root * cells / _CELLS)]
    for level in range(1, LEVELS + 1):
        width = _CELLS >> (level - 1)
        cell, inside = divmod(cells, width)
        if not inside:
            break
        height = 2.0 ** (-(level + 1) / 2) * (1 - abs(2 * inside / width - 1))
        found.append((first + (1 << (level - 1)) + cell, root * height))
    return found
