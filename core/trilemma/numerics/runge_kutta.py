"""Adaptive Runge–Kutta by embedded pairs: every sample of a batch takes the steps that its own error asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError

ATTEMPTS = 10_000
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0


@dataclass(frozen=True)
class Pair:
    """An explicit method whose last stage is the first of the next step, and the method it is compared with.

    Attributes:
        order: of the method that is followed.
        nodes: c_i.
        stages: a_ij, a line each from the second stage on; the last line is the method's own weights.
        error: weights of the difference of the two.
    """

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


PAIRS = {
    "bosh3": Pair(
        3,
        (0, 1 / 2, 3 / 4, 1),
        ((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    ),
    "dopri5": Pair(
        5,
        (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}


def root_mean_square(error: Tensor) -> Tensor:
    """Returns the root mean square [B] over the elements of each sample of an error [B, ...]."""
    return error.flatten(1).square().mean(1).sqrt()


def integrate(
    pair: Pair,
    slope: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    interval: tuple[float, float],
    first: float,
    tolerance: float,
    size: Callable[[Tensor], Tensor] = root_mean_square,
    report: Callable[[int, Tensor, Tensor], None] = lambda attempt, u, y: None,
) -> tuple[Tensor, int]:
    """Returns the states [B, ...] at the end of dy/du = slope(u, y), and the attempts that took.

    A step h is accepted where its error e, the size of the pair's difference over tolerance·(1 + |y|), is at most 1;
    the next is

        h ← h · 0.9 e^(−0.7/q) e_before^(0.4/q)

    (PI control, q the order of the error, at most five times more or less). Steps are a sample's own, so no other
    sample of the batch changes it; the batch runs until its last sample arrives. A sample whose error is not finite
    arrives at once, as it is.

    Args:
        pair: of methods.
        slope: of u [B], float64 on the host, and y [B, ...].
        y: states at the start.
        interval: u at the start and at the end, rising or falling.
        first: the first step, positive on a rising interval and negative on a falling one.
        tolerance: relative and absolute tolerance of a step.
        size: of an error [B, ...], the number [B] that is compared with 1.
        report: called with (attempts, u, y) after each that some sample accepted.

    Raises:
        TrilemmaError: where 10,000 attempts do not arrive.

    References:
        Söderlind, Automatic control and adaptive time-stepping, Numer. Algorithms 31, 2002.
    """
    start, end = interval
    rate = 1 / min(pair.order, 5)
    u = torch.full((len(y),), start, dtype=torch.float64)
    step = torch.full_like(u, first)
    before = torch.ones_like(u)
    slopes = [slope(u, y)]
    for attempt in range(1, ATTEMPTS + 1):
        left = end - u
        last = step.abs() >= left.abs() * (1 - 1e-12)
        step = torch.where(last, left, step)
        h = a_number_a_sample(step, y)
        for node, line in zip(pair.nodes[1:], pair.stages, strict=True):
            reached = y + h * combined(line, slopes)
            slopes.append(slope(u + node * step, reached))
        scale = tolerance * (1 + torch.maximum(y.abs(), reached.abs()))
        error = size(h * combined(pair.error, slopes) / scale).to("cpu", torch.float64)
        lost = ~error.isfinite()
        accepted = (error <= 1) | lost
        u = torch.where(accepted, torch.where(last | lost, end, u + step), u)
        moved = a_number_a_sample(accepted, y)
        y = torch.where(moved, reached, y)
        slopes = [torch.where(moved, slopes[-1], slopes[0])]
        if bool(accepted.any()):
            report(attempt, u, y)
        if bool((u == end).all()):
            return y, attempt
        error = error.clamp_min(1e-8)
        factor = SAFETY * torch.where(accepted, error**-0.7 * before**0.4, error**-1.0).pow(rate)
        step = step * factor.clamp(SHRINK, GROW)
        before = torch.where(accepted, error, before)
    raise TrilemmaError(
        f"adaptive Runge–Kutta did not arrive in {ATTEMPTS} steps at tolerance {tolerance:g}; give a larger one"
    )


def combined(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """Returns Σ w_i k_i of the first slopes; those of weight 0 are left out."""
    first, *others = ((w, k) for w, k in zip(weights, slopes, strict=True) if w)
    total = first[0] * first[1]
    for weight, slope in others:
        total = total + weight * slope
    return total


def a_number_a_sample(values: Tensor, state: Tensor) -> Tensor:
    """Returns values [B], one a sample, with the shape, device and (except for booleans) dtype to combine with states
    [B, ...]."""
    shaped = values.view(-1, *(1,) * (state.dim() - 1))
    return shaped.to(state.device) if values.dtype == torch.bool else shaped.to(state.device, state.dtype)
