"""From a sampler's tableau to the table of numbers that the fused kernel reads.

Per row the kernel computes, with state z, base state, network outputs o_g, history h_j and noise ξ,

    m = Σ_g w_g o_g,  u = P z + Q m,  u = clip(u),  f = R z + S u,
    z' = A base + B_0 f + Σ_k D_k z_k + Σ_{j≥1} B_j h_j + C ξ.

Lowering fills in P, Q, R, S from the parameterizations at hand, w from the guidance, and lays out the buffers: as many
states as are read later at any one time, and a ring of predictions as long as the furthest lag.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

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

    @cached_property
    def evaluations(self) -> int:
        """Evaluations of a network that one sample pays, those that a guidance makes by itself left out."""
        return sum(slots.evaluated for slots in self.slots)

    @cached_property
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
    reads = _reads(tableau.rows)
    _check(tableau, reads, parameterization, process)
    history = max([lag for of in _distinct(reads) for lag in of.lags], default=0)
    slots = _slots(tableau, reads, history)
    columns = layout.Columns(tableau.components)
    table = _table(tableau, parameterization, process, columns)
    _silence(table, columns, slots)
    times = tuple([float(row.t) for row in tableau.rows])
    _check_finite(table, times, repr(parameterization))
    return Program(
        table=table,
        times=times,
        slots=slots,
        noisy=tuple((table[:, columns.C] != 0).any(1).tolist()),
        steps=tableau.rows_of_steps(),
        states=1 + max([entry.write for entry in slots]),
        history=history,
        components=tableau.components,
        end_time=end_time,
        starts=tuple([times[r - of.base] for r, of in enumerate(reads)]),
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


class Reads(NamedTuple):
    """All that a row reads.

    Attributes:
        base: rows back of the base state.
        lags: of the predictions, in the row's order.
        back: rows back of the further states.
    """

    base: int
    lags: tuple[int, ...]
    back: tuple[int, ...]


def _reads(rows: Sequence[Row]) -> list[Reads]:
    """What each row reads; rows that read alike share one record, since most of a long plan do."""
    shared: dict[tuple[Any, ...], Reads] = {}
    found = []
    for row in rows:
        key = (row.base, tuple([lag for lag, _ in row.B]), tuple([n for n, _ in row.D]) if row.D else ())
        of = shared.get(key)
        if of is None:
            of = shared[key] = Reads(*key)
        found.append(of)
    return found


def _distinct(reads: Sequence[Reads]) -> list[Reads]:
    """The records among those of `_reads`, in order of their first rows."""
    return list({id(of): of for of in reads}.values())


def _slots(tableau: Tableau, reads: Sequence[Reads], history: int) -> tuple[Slots, ...]:
    distinct = _distinct(reads)
    if distinct == [Reads(0, (0,), ())]:
        return (Slots(0, 0, 0, (), -1),) * len(reads)
    evaluated = tableau.evaluated()
    in_place = all(of.base == 0 and not of.back for of in distinct)
    places = [0] * (len(reads) + 1) if in_place else _places_of_states(reads)
    needed = {r - lag for r, of in enumerate(reads) for lag in of.lags if lag > 0}
    known: dict[tuple[Any, ...], Slots] = {}
    found = []
    for r, of in enumerate(reads):
        turn = r % history if history else 0
        seen, base, written = places[r], places[r - of.base], places[r + 1]
        others = tuple([places[r - back] for back in of.back]) if of.back else ()
        key = (id(of), turn, r in needed, evaluated[r], seen, base, written, others)
        slots = known.get(key)
        if slots is None:
            earlier = tuple([(r - lag) % history for lag in of.lags if lag > 0])
            kept = turn if r in needed else -1
            slots = Slots(seen, base, written, earlier, kept, int(evaluated[r]), others)
            known[key] = slots
        found.append(slots)
    return tuple(found)


def _places_of_states(reads: Sequence[Reads]) -> list[int]:
    """The buffer of the state before each row and after the last: the first one that no later row reads.

    A row reads all of its states before it writes, so that the new one may lie where one of them does.
    """
    last = list(range(len(reads)))
    for r, of in enumerate(reads):
        for back in (of.base, *of.back):
            last[r - back] = r
    places, free, count = [0], [], 1
    for r, of in enumerate(reads):
        read = {r, r - of.base, *[r - back for back in of.back]} if of.base or of.back else (r,)
        free += [places[state] for state in read if last[state] == r]
        if not free:
            free, count = [count], count + 1
        place = min(free)
        free.remove(place)
        places.append(place)
    return places


def _table(tableau: Tableau, parameterization: str, process: Process, columns: layout.Columns) -> Tensor:
    """[rows, WIDTH], float64, with the weight 1 for a single branch."""
    numbers = array("d", _numbers(tableau, columns))
    table = torch.frombuffer(numbers, dtype=torch.float64).view(-1, columns.WIDTH)
    table[:, columns.CLIP] = math.inf if tableau.clip is None else tableau.clip
    table[:, columns.W.start] = 1
    _fill_conversions(table, columns, tableau, parameterization, process)
    return table


def _silence(table: Tensor, columns: layout.Columns, slots: Sequence[Slots]) -> None:
    """Takes the conversions out of rows without an evaluation: there is no prediction, and none to be infinite."""
    silent = [r for r, entry in enumerate(slots) if not entry.evaluated]
    if not silent:
        return
    for column in (columns.P, columns.Q, columns.R, columns.S):
        table[silent, column] = 0


def _numbers(tableau: Tableau, columns: layout.Columns) -> list[float]:
    """A, B_0, B_1, …, C and D_1, … of each row, in the columns of the table, row after row."""
    K, width = tableau.components, columns.WIDTH
    A, B, C, D = columns.A, columns.B.start, columns.C, columns.D.start
    found = [0.0] * (width * len(tableau.rows))
    for begin, row in zip(range(0, len(found), width), tableau.rows, strict=True):
        if K == 1 and isinstance(row.A, float) and isinstance(row.C, float):
            found[begin + A.start], found[begin + C.start] = row.A, row.C
        else:
            found[begin + A.start : begin + A.stop] = matrix(row.A, K)
            found[begin + C.start : begin + C.stop] = matrix(row.C, K)
        place = begin + B
        for lag, coefficient in row.B:
            if lag > 0:
                place += K
            at = place if lag > 0 else begin + B
            if K == 1 and isinstance(coefficient, float):
                found[at] = coefficient
            else:
                found[at : at + K] = vector(coefficient, K)
        for n, (_, weight) in enumerate(row.D):
            at = begin + D + n * K * K
            found[at : at + K * K] = matrix(weight, K)
    return found


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


def _check(tableau: Tableau, reads: Sequence[Reads], parameterization: str, process: Process) -> None:
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
    # The first of the rows that read alike reads furthest back from where the plan begins.
    firsts = dict(zip(map(id, reversed(reads)), reversed(range(len(reads))), strict=True))
    for of in _distinct(reads):
        r = firsts[id(of)]
        back = [of.base, *of.back]
        if min([*back, *of.lags]) < 0 or max([*back, *of.lags]) > r:
            raise TrilemmaError(
                f"row {r + 1} of the sampler's tableau reads further back than the rows before it; the sampler is wrong"
            )
        if len(of.back) > layout.MAX_OTHERS:
            raise TrilemmaError(
                f"row {r + 1} of the sampler's tableau names {len(of.back)} states in D; the fused step reads at most "
                f"{layout.MAX_OTHERS} beside the base"
            )
        if len(set(of.lags)) != len(of.lags) or sum(map(bool, of.lags)) > layout.MAX_LAGS:
            raise TrilemmaError(
                f"row {r + 1} of the sampler's tableau names a lag twice or over {layout.MAX_LAGS} earlier ones; "
                "the sampler is wrong"
            )
