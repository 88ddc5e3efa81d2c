"""An adaptive Runge-Kutta pair for an ordinary differential equation of several tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.numerics.runge_kutta import PAIRS

State = tuple[Tensor, ...]

_PAIR = PAIRS["dopri5"]


def integrate(
    slope: Callable[[float, State], State],
    state: State,
    start: float,
    end: float,
    tolerance: float,
    first: float | None = None,
) -> tuple[State, int]:
    """The state at `end` of dy/du = slope(u, y) from `state` at `start` < `end`, and the evaluations it took.

    A step is taken where the error's root mean square, over each of the tensors and relative to
    tolerance · (1 + |y|), is at most 1; the next is (0.9/error^{1/5}) times as long, between a fifth and five times.

    Raises:
        TrilemmaError: where the step shrinks to nothing, as on slopes that are not finite.
    """
    u, step = start, (end - start) / 50 if first is None else first
    k0, evaluations = slope(u, state), 1
    while u < end:
        step = min(step, end - u)
        if step < 1e-10 * (end - start) and end - u > step:
            raise TrilemmaError("the likelihood's equation cannot be integrated; check the model's weights")
        stages = [k0]
        for c, row in zip(_PAIR.nodes[1:], _PAIR.stages, strict=True):
            last = _plus(state, stages, row, step)
            stages.append(slope(u + c * step, last))
        evaluations += len(_PAIR.stages)
        error = _size(
            _plus(tuple(torch.zeros_like(y) for y in state), stages, _PAIR.error, step), state, tolerance
        )
        if error <= 1:
            u, state, k0 = (end if step == end - u else u + step), last, stages[-1]
        growth = 0.9 * max(error, 1e-10) ** -0.2 if error == error else 0.2
        step *= min(5.0, max(0.2, growth))
    return state, evaluations


def _plus(state: State, stages: list[State], row: tuple[float, ...], step: float) -> State:
    return tuple(
        y + sum(step * a * stage[i] for a, stage in zip(row, stages, strict=True) if a)
        for i, y in enumerate(state)
    )


def _size(error: State, state: State, tolerance: float) -> float:
    ratios = [(e / (tolerance * (1 + y.abs()))).square().mean() for e, y in zip(error, state, strict=True)]
    return max(float(ratio.sqrt()) for ratio in ratios)
