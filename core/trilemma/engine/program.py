"""From a sampler's tableau to the table of numbers that the fused kernel reads.

Per row the kernel computes, with state z, base state, network outputs o_g, history h_j and noise ξ,

    m = Σ_g w_g o_g,  u = P z + Q m,  u = clip(u),  f = R z + S u,
    z' = A base + B_0 f + Σ_{j≥1} B_j h_j + C ξ.

Lowering fills in P, Q, R, S from the parameterizations at hand, w from the guidance, and lays out two rings:
one of states, as long as the furthest base, and one of predictions, as long as the furthest lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.interfaces.guidance import Guidance, Unguided
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Row, Tableau, Vector, matrix, vector
from trilemma.numerics.conversion import check_components, convert
from trilemma.ops import layout


@dataclass(frozen=True)
class Program:
    """A lowered tableau: what the runner needs and nothing else.

    Attributes:
        table: [rows, layout.Columns(components).WIDTH], float64, on the host.
        times: per row, the time at which the network sees the state.
        read_state, write_state: per row, the slot of the base state and the one that receives the new state;
            the network sees the slot that the row before wrote, slot 0 at first.
        read_history: per row, the slots of the predictions that B_1, B_2, … multiply.
        write_history: per row, the slot that receives its prediction, −1 where no later row needs it.
        noisy: per row, whether C ≠ 0.
        states, history: lengths of the two rings.
        branches: G, the branches of the guidance.
        evaluated: per row, how many of the branches the network evaluates, from the first on.
        components: K of the states.
        combine: the guidance, where its combination is not linear.
        end_time: time of the state after the last row.
    """

    table: Tensor
    times: tuple[float, ...]
    read_state: tuple[int, ...]
    write_state: tuple[int, ...]
    read_history: tuple[tuple[int, ...], ...]
    write_history: tuple[int, ...]
    noisy: tuple[bool, ...]
    states: int
    history: int
    branches: int
    components: int = 1
    combine: Guidance | None = None
    end_time: float = 0.0
    evaluated: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.times)


def lower(
    tableau: Tableau,
    parameterization: str,
    process: Process,
    guidance: Guidance | None = None,
    branches: int = 1,
    end_time: float = 0.0,
) -> Program:
    """The program of a tableau for a network of this parameterization under this guidance.

    Args:
        tableau: the sampler's coefficients.
        parameterization: what the network puts out.
        process: gives α and σ at the times of the rows.
        guidance: how branches combine; None for one branch.
        branches: evaluations of a row.
        end_time: time of the state after the last row.

    Raises:
        TrilemmaError: for a tableau the kernel cannot run, with the row (counted from 1) that is at fault.
    """
    guidance = guidance or Unguided()
    _check(tableau, parameterization, branches, process)
    rows = tableau.rows
    states = 1 + max(row.base for row in rows)
    history = max(lag for row in rows for lag, _ in row.B) if any(row.B for row in rows) else 0
    needed = {r - lag for r, row in enumerate(rows) for lag, _ in row.B if lag > 0}
    return Program(
        table=_table(tableau, parameterization, process, guidance),
        times=tuple(float(row.t) for row in rows),
        read_state=tuple((r - row.base) % states for r, row in enumerate(rows)),
        write_state=tuple((r + 1) % states for r in range(len(rows))),
        read_history=tuple(
            tuple((r - lag) % history for lag, _ in _earlier(row)) for r, row in enumerate(rows)
        ),
        write_history=tuple(r % history if r in needed else -1 for r in range(len(rows))),
        noisy=tuple(any(matrix(row.C, tableau.components)) for row in rows),
        states=states,
        history=history,
        branches=branches,
        components=tableau.components,
        combine=None if guidance.linear else guidance,
        end_time=end_time,
        evaluated=tuple(min(branches, guidance.evaluated(row.t, branches)) for row in rows),
    )


def _table(tableau: Tableau, parameterization: str, process: Process, guidance: Guidance) -> Tensor:
    """[rows, WIDTH], float64."""
    rows, columns = tableau.rows, layout.Columns(tableau.components)
    table = torch.zeros(len(rows), columns.WIDTH, dtype=torch.float64)
    _fill_conversions(table, columns, tableau, parameterization, process)
    for r, row in enumerate(rows):
        direct = [vector(c, tableau.components) for lag, c in row.B if lag == 0]
        terms = [direct[0] if direct else [0.0] * tableau.components]
        terms += [vector(c, tableau.components) for _, c in _earlier(row)]
        weights = guidance.weights(row.t) if guidance.linear else (1.0,)
        table[r, columns.A] = _row(matrix(row.A, tableau.components))
        table[r, columns.B][: len(terms) * tableau.components] = _row(
            [entry for term in terms for entry in term]
        )
        table[r, columns.C] = _row(matrix(row.C, tableau.components))
        table[r, columns.W][: len(weights)] = _row(weights)
    broken = (~table.isfinite()).any(1)
    if broken.any():
        r = int(broken.nonzero()[0])
        raise TrilemmaError(
            f"the coefficients of step {r + 1} of {len(rows)} (t={rows[r].t:g}) are not finite; "
            f"{parameterization!r} cannot be read at that time, choose another grid"
        )
    table[:, columns.CLIP] = math.inf if tableau.clip is None else tableau.clip
    return table


def _fill_conversions(
    table: Tensor, columns: layout.Columns, tableau: Tableau, parameterization: str, process: Process
) -> None:
    """P, Q, R and S: from what the network puts out to what the sampler reads."""
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


def _row(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _earlier(row: Row) -> list[tuple[int, Vector]]:
    return [(lag, c) for lag, c in row.B if lag > 0]


def _check(tableau: Tableau, parameterization: str, branches: int, process: Process) -> None:
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
    if branches > layout.MAX_BRANCHES:
        raise TrilemmaError(
            f"the guidance asks for {branches} branches; the fused step combines {layout.MAX_BRANCHES}"
        )
    for r, row in enumerate(tableau.rows):
        name = f"row {r + 1} of the sampler's tableau"
        if not 0 <= row.base <= r or any(not 0 <= lag <= r for lag, _ in row.B):
            raise TrilemmaError(f"{name} reads further back than the rows before it; the sampler is wrong")
        if len({lag for lag, _ in row.B}) != len(row.B) or len(_earlier(row)) > layout.MAX_LAGS:
            raise TrilemmaError(
                f"{name} names a lag twice or over {layout.MAX_LAGS} earlier ones; the sampler is wrong"
            )
