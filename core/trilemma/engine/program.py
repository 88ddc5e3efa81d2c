"""From a sampler's tableau to the table of numbers that the fused kernel reads.

Per row the kernel computes, with state z, base state, network outputs o_g, history h_j and noise ξ,

    m = Σ_g w_g o_g,  u = P z + Q m,  u = clip(u),  f = R z + S u,
    z' = A base + B_0 f + Σ_k D_k z_k + Σ_{j≥1} B_j h_j + C ξ.

Lowering fills in P, Q, R, S from the parameterizations at hand, w from the guidance, and lays out the buffers: as many
states as are read later at any one time, and a ring of predictions as long as the furthest lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.interfaces.guidance import BoundGuidance
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Row, Tableau, matrix, vector
from trilemma.numerics.conversion import check_components, convert
from trilemma.ops import layout


@dataclass(frozen=True, slots=True)
class Slots:
    """The buffers that a row reads and writes.

    Attributes:
        seen: slot of the state that the network sees.
        base, write: slots of the base state and of the new state.
        history: slots of the predictions that B_1, B_2, … multiply.
        write_history: slot that receives the row's prediction, −1 where no later row needs it.
        evaluated: how many branches the network evaluates, from the first on; 0 for a row without an evaluation.
        others: slots of the states that D_1, D_2, … multiply.
    """

    seen: int
    base: int
    write: int
    history: tuple[int, ...]
    write_history: int
    evaluated: int = 1
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """A lowered tableau: all that the loop needs and nothing else.

    Attributes:
        table: [rows, layout.Columns(components).WIDTH], float64, on the host.
        times: per row, the time at which the network sees the state.
        slots: per row.
        noisy: per row, whether C ≠ 0.
        steps: rows of each step of the sampler.
        states, history: numbers of buffers for states and for predictions.
        branches: G, the branches of the guidance.
        components: K of the states.
        end_time: time of the state after the last row.
        starts: per row, the time of its base state.
        ends: per row, the time that it goes to, as networks are told that ask for it.
    """

    table: Tensor
    times: tuple[float, ...]
    slots: tuple[Slots, ...]
    noisy: tuple[bool, ...]
    steps: tuple[int, ...]
    states: int
    history: int
    branches: int = 1
    components: int = 1
    end_time: float = 0.0
    starts: tuple[float, ...] = ()
    ends: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    def time_after(self, row: int) -> float:
        """Returns the time of the state after a row."""
        return self.times[row + 1] if row + 1 < len(self.times) else self.end_time

    @property
    def evaluations(self) -> int:
        """Evaluations of a network that one sample pays, those that a guidance makes by itself left out."""
        return sum(slots.evaluated for slots in self.slots)

    @property
    def evaluated_rows(self) -> tuple[int, ...]:
        """The rows whose network is evaluated."""
        return tuple([row for row, slots in enumerate(self.slots) if slots.evaluated])


def lower(tableau: Tableau, parameterization: str, process: Process, end_time: float = 0.0) -> Program:
    """Returns the program of a tableau for a network of this parameterization, without guidance.

    Args:
        tableau: the sampler's coefficients.
        parameterization: of the network's output.
        process: gives α and σ at the times of the rows.
        end_time: time of the state after the last row.

    Raises:
        TrilemmaError: for a tableau the kernel cannot run, with the row (counted from 1) that is at fault.
    """
    _check(tableau, parameterization, process)
    rows = tableau.rows
    slots = _slots(tableau)
    return Program(
        table=_table(tableau, parameterization, process, slots),
        times=tuple([float(row.t) for row in rows]),
        slots=slots,
        noisy=tuple([_is_noisy(row, tableau.components) for row in rows]),
        steps=tableau.rows_of_steps(),
        states=1 + max([entry.write for entry in slots]),
        history=_furthest_lag(rows),
        components=tableau.components,
        end_time=end_time,
        starts=tuple([float(rows[r - row.base].t) for r, row in enumerate(rows)]),
        ends=tableau.ends(end_time),
    )


def guided(program: Program, guidance: BoundGuidance) -> Program:
    """Returns the program under a guidance, whose weights are folded into the rows where it is linear.

    Raises:
        TrilemmaError: for more branches than a row can mix.
    """
    branches = len(guidance.branches)
    if branches > layout.MAX_BRANCHES:
        raise TrilemmaError(
            f"the guidance asks for {branches} branches; the fused step combines {layout.MAX_BRANCHES}"
        )
    if branches == 1 and guidance.linear and all(guidance.weights(t) == (1.0,) for t in program.times):
        return program
    table = program.table.clone()
    if guidance.linear:
        weights = [guidance.weights(t) for t in program.times]
        columns = layout.Columns(program.components).W
        table[:, columns] = 0
        table[:, columns][:, :branches] = torch.tensor(weights, dtype=torch.float64)
        _check_finite(table, program.times, "the guidance's combination")
    counts = [
        min(branches, guidance.evaluated(t)) if old.evaluated else 0
        for old, t in zip(program.slots, program.times, strict=True)
    ]
    known: dict[tuple[Slots, int], Slots] = {}
    slots = []
    for old, count in zip(program.slots, counts, strict=True):
        new = known.get((old, count))
        if new is None:
            new = known[old, count] = replace(old, evaluated=count)
        slots.append(new)
    return replace(program, table=table, slots=tuple(slots), branches=branches)


def _slots(tableau: Tableau) -> tuple[Slots, ...]:
    rows = tableau.rows
    history = _furthest_lag(rows)
    if not history and all(row.base == 0 and len(row.B) == 1 and not row.D for row in rows):
        return (Slots(0, 0, 0, (), -1),) * len(rows)
    needed = {r - lag for r, row in enumerate(rows) for lag, _ in row.B if lag > 0} if history else ()
    evaluated, places = tableau.evaluated(), _places_of_states(rows)
    known: dict[tuple[Any, ...], Slots] = {}
    found = []
    for r, row in enumerate(rows):
        earlier = tuple([(r - lag) % history for lag, _ in row.B if lag > 0]) if history else ()
        kept = r % history if r in needed else -1
        others = tuple([places[r - back] for back, _ in row.D])
        key = (places[r], places[r - row.base], places[r + 1], earlier, kept, int(evaluated[r]), others)
        slots = known.get(key)
        if slots is None:
            slots = known[key] = Slots(*key)
        found.append(slots)
    return tuple(found)


def _places_of_states(rows: Sequence[Row]) -> list[int]:
    """The buffer of the state before each row and after the last: the first one that no later row reads.

    A row reads all of its states before it writes, so that the new one may lie where one of them does.
    """
    last = list(range(len(rows)))
    for r, row in enumerate(rows):
        for back in (row.base, *[back for back, _ in row.D]):
            last[r - back] = r
    places, free, count = [0], [], 1
    for r, row in enumerate(rows):
        read = {r, r - row.base, *[r - back for back, _ in row.D]}
        free += [places[state] for state in read if last[state] == r]
        if not free:
            free, count = [count], count + 1
        place = min(free)
        free.remove(place)
        places.append(place)
    return places


def _is_noisy(row: Row, components: int) -> bool:
    return row.C != 0 if isinstance(row.C, int | float) else any(matrix(row.C, components))


def _furthest_lag(rows: Sequence[Row]) -> int:
    return max([lag for row in rows for lag, _ in row.B], default=0)


def _table(tableau: Tableau, parameterization: str, process: Process, slots: Sequence[Slots]) -> Tensor:
    """[rows, WIDTH], float64, with the weight 1 for a single branch."""
    columns = layout.Columns(tableau.components)
    lines = _lines(tableau, columns)
    table = torch.tensor(lines, dtype=torch.float64)
    table[:, columns.CLIP] = math.inf if tableau.clip is None else tableau.clip
    table[:, columns.W.start] = 1
    _fill_conversions(table, columns, tableau, parameterization, process)
    silent = [r for r, entry in enumerate(slots) if not entry.evaluated]
    if silent:
        # There is no prediction, and none that could be infinite.
        for column in (columns.P, columns.Q, columns.R, columns.S):
            table[silent, column] = 0
    _check_finite(table, [row.t for row in tableau.rows], repr(parameterization))
    return table


def _lines(tableau: Tableau, columns: layout.Columns) -> list[list[float]]:
    """A, B_0, B_1, …, C and D_1, … of each row, in the columns of the table."""
    K, width = tableau.components, columns.WIDTH
    A, B, C = columns.A, columns.B, columns.C
    empty, lines = [0.0] * width, []
    for row in tableau.rows:
        line = empty.copy()
        if K == 1 and isinstance(row.A, float) and isinstance(row.C, float):
            line[A.start], line[C.start] = row.A, row.C
        else:
            line[A], line[C] = matrix(row.A, K), matrix(row.C, K)
        place = B.start
        for lag, coefficient in row.B:
            if lag > 0:
                place += K
            at = place if lag > 0 else B.start
            if K == 1 and isinstance(coefficient, float):
                line[at] = coefficient
            else:
                line[at : at + K] = vector(coefficient, K)
        for n, (_, weight) in enumerate(row.D):
            at = columns.D.start + n * K * K
            line[at : at + K * K] = matrix(weight, K)
        lines.append(line)
    return lines


def _fill_conversions(
    table: Tensor, columns: layout.Columns, tableau: Tableau, parameterization: str, process: Process
) -> None:
    """Fills in P, Q, R and S: from the network's output to the prediction that the sampler reads."""
    t = torch.tensor([row.t for row in tableau.rows], dtype=torch.float64)
    w, alpha, sigma = process.last_component(t)
    if tableau.clip is None:
        p, table[:, columns.Q] = convert(parameterization, tableau.parameterization, alpha, sigma)
        table[:, columns.P] = p.unsqueeze(-1) * w
        table[:, columns.S] = 1
    else:
        p, table[:, columns.Q] = convert(parameterization, "x0", alpha, sigma)
        r, table[:, columns.S] = convert("x0", tableau.parameterization, alpha, sigma)
        table[:, columns.P], table[:, columns.R] = p.unsqueeze(-1) * w, r.unsqueeze(-1) * w


def _check_finite(table: Tensor, times: Sequence[float], reading: str) -> None:
    total = float(table.where(table != math.inf, 0.0).sum())
    if math.isfinite(total):
        return
    # The bound of the clip is infinite where there is none.
    clip = layout.columns(table.shape[1])
    assert clip is not None
    found = table.clone()
    found[:, clip.CLIP] = 0
    broken = (~found.isfinite()).any(1)
    if broken.any():
        r = int(broken.nonzero()[0])
        raise TrilemmaError(
            f"the coefficients of step {r + 1} of {len(times)} (t={times[r]:g}) are not finite; "
            f"{reading} cannot be read at that time, choose another grid"
        )


def _check(tableau: Tableau, parameterization: str, process: Process) -> None:
    if not tableau.rows:
        raise TrilemmaError("the sampler planned no rows; a tableau needs at least one")
    if not 1 <= tableau.components <= 2:
        raise TrilemmaError(
            f"a tableau of {tableau.components} components cannot be run, only of one or two; write `sample` instead"
        )
    if tableau.components != process.components:
        raise TrilemmaError(
            f"the sampler planned for {tableau.components} components and {type(process).__name__} has "
            f"{process.components}; plan for those"
        )
    check_components(parameterization, tableau.components)
    check_components(tableau.parameterization, tableau.components)
    if tableau.clip is not None and not tableau.clip > 0:
        raise TrilemmaError(f"clip={tableau.clip!r} clips everything away; give a positive bound or None")
    for r, row in enumerate(tableau.rows):
        lags = [lag for lag, _ in row.B]
        if not row.base and not row.D and lags in ([0], []):
            continue
        back = [row.base, *[back for back, _ in row.D]]
        if min(back) < 0 or max(back) > r or (lags and not (min(lags) >= 0 and max(lags) <= r)):
            raise TrilemmaError(
                f"row {r + 1} of the sampler's tableau reads further back than the rows before it; the sampler is wrong"
            )
        if len(row.D) > layout.MAX_OTHERS:
            raise TrilemmaError(
                f"row {r + 1} of the sampler's tableau names {len(row.D)} states in D; the fused step reads at most "
                f"{layout.MAX_OTHERS} beside the base"
            )
        if len(lags) > 1 and (len(set(lags)) != len(lags) or sum(map(bool, lags)) > layout.MAX_LAGS):
            raise TrilemmaError(
                f"row {r + 1} of the sampler's tableau names a lag twice or over {layout.MAX_LAGS} earlier ones; "
                "the sampler is wrong"
            )
