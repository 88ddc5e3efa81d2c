"""Grids of times: which S of a process's times a sampler visits.

On a table of T steps a grid is S distinct indices τ of 0 .. T−1 for every S in 1 .. T, computed in integers;
the step after the smallest τ lands on the data. A process in continuous time takes the same shapes in the
limit of many table steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from operator import lt

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError, nearest, shown

GRIDS = ("uniform", "quadratic", "leading", "trailing", "linspace", "squares")
MOST_STEPS = 1_000_000
# Continuous grids that would reach t = 0 stop here, since a network cannot be asked at 0.
SMALLEST_TIME = 1e-3


def times(
    table: int | None, steps: int, grid: str = "trailing", smallest_time: float = SMALLEST_TIME
) -> Tensor:
    """Returns the steps + 1 times of a grid, strictly falling from the prior to 0.

    Args:
        table: T of a discrete process, whose times are t_k = (k+1)/T; None for a continuous one.
        steps: S ≥ 1; at most T on a table.
        grid: a name from `GRIDS`.
        smallest_time: where a continuous grid that would reach t = 0 stops.

    Returns:
        Tensor [steps + 1], float64.

    Raises:
        UsageError: for an unknown grid or an impossible number of steps.
    """
    check_grid(grid)
    steps = check_steps(table, steps)
    if table is None:
        rising = continuous_times(steps, grid, smallest_time)
    else:
        rising = [(index + 1) / table for index in table_indices(table, steps, grid)]
    return torch.tensor([*reversed(rising), 0.0], dtype=torch.float64)


def table_indices(T: int, S: int, grid: str) -> list[int]:
    """Returns the S distinct table indices τ_0 < … < τ_{S−1} of a grid, i = 0 .. S−1.

    uniform (2010.02502): ⌊i T/S⌋; leading (2112.10752): the same plus 1; quadratic (2010.02502):
    ⌊(i √(.8 T)/(S−1))²⌋; trailing (2305.08891): T, T − T/S, … rounded, minus 1; linspace: i (T−1)/(S−1)
    rounded, T−1 alone for S = 1; squares (2112.07068): (i/(S−1))² (T−1) rounded, which reaches the prior.
    """
    last = max(S - 1, 1)
    match grid:
        case "uniform":
            indices = [i * T // S for i in range(S)]
        case "leading":
            indices = [i * T // S + 1 for i in range(S)]
        case "quadratic":
            indices = [4 * T * i * i // (5 * last * last) for i in range(S)]
        case "trailing":
            indices = [(2 * (i + 1) * T + S) // (2 * S) - 1 for i in range(S)]
        case "linspace":
            indices = [(2 * i * (T - 1) + last) // (2 * last) for i in range(S)] if S > 1 else [T - 1]
        case "squares":
            indices = [(2 * i * i * (T - 1) + last * last) // (2 * last * last) for i in range(S)]
            indices = indices if S > 1 else [T - 1]
        case _:
            raise ValueError(grid)
    return _distinct(indices, T)


def continuous_times(S: int, grid: str, smallest_time: float = SMALLEST_TIME) -> list[float]:
    """Returns the S rising times of a grid in continuous time; grids that would begin at 0 begin a little later."""
    last = max(S - 1, 1)
    match grid:
        case "uniform" | "leading":
            places = [i / S for i in range(S)]
        case "quadratic":
            places = [0.8 * (i / last) ** 2 for i in range(S)]
        case "trailing":
            return [(i + 1) / S for i in range(S)]
        case "linspace":
            places = [i / last for i in range(S)] if S > 1 else [1.0]
        case "squares":
            places = [(i / last) ** 2 for i in range(S)] if S > 1 else [1.0]
        case _:
            raise ValueError(grid)
    return [smallest_time + (1 - smallest_time) * place for place in places]


def check_grid(grid: str, known: Sequence[str] = GRIDS) -> None:
    """Raises UsageError, with the nearest name, for a grid that is not known."""
    if grid not in known:
        near = nearest(str(grid), known)
        hint = f"did you mean {near[0]!r}?" if near else f"known grids: {', '.join(known)}"
        raise UsageError(f"unknown grid {shown(grid)}; {hint}")


def check_steps(table: int | None, steps: int) -> int:
    """Returns the number of steps as an int; raises UsageError where it is no integer in 1 .. T."""
    steps = checked_integer(steps, "steps", 1, MOST_STEPS, what="is not a number of steps")
    if table is not None and steps > table:
        raise UsageError(
            f"steps={steps} is more than the {table} steps of the model's process; give at most {table}"
        )
    return steps


def _distinct(indices: list[int], T: int) -> list[int]:
    """Pushes equal neighbours up by one, then everything that left the table back down."""
    if indices[-1] < T and all(map(lt, indices, islice(indices, 1, None))):
        return indices
    for i in range(1, len(indices)):
        indices[i] = max(indices[i], indices[i - 1] + 1)
    ceiling = T
    for i in reversed(range(len(indices))):
        indices[i] = ceiling = min(indices[i], ceiling - 1)
    return indices
