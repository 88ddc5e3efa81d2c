"""A sampler written as numbers: one row a step, z ← A·z_base + Σ_k D_k·z_k + Σ_j B_j·f_j + C·ξ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from trilemma.errors import TrilemmaError

# K×K; a plain number a stands for a·I.
Matrix: TypeAlias = "float | tuple[tuple[float, ...], ...]"
# K numbers; a plain number stands for K = 1.
Vector: TypeAlias = "float | tuple[float, ...]"


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluation of the network and the linear combination that follows it.

        z ← A·z_base + Σ_k D_k·z_k + Σ_j B_j·f_j + C·ξ,   ξ ~ N(0, I)

    A row whose prediction f no row reads, itself or a later one, is not evaluated, and the sample does not pay for it.

    Attributes:
        t: time at which the network sees the state.
        A: coefficient of z_base.
        B: pairs (lag, coefficient); lag 0 is this row's prediction f, lag j that of j rows before.
        C: coefficient of fresh noise.
        base: z_base is the state of `base` rows back; 0 is the state the network sees.
        D: pairs (rows back, coefficient) of further states, at most `trilemma.ops.layout.MAX_OTHERS` of them.
        to: time that the row goes to, for networks that are told; None is the time of the state that the next row sees.
    """

    t: float
    A: Matrix
    B: tuple[tuple[int, Vector], ...]
    C: Matrix = 0.0
    base: int = 0
    D: tuple[tuple[int, Matrix], ...] = ()
    to: float | None = None

    @property
    def is_one_step(self) -> bool:
        """True where it goes from the state that the network sees by its own prediction alone."""
        return not self.base and not self.D and all(lag == 0 for lag, _ in self.B)


def matrix_row(
    t: float | Tensor, A: Tensor, B: Sequence[Tensor], C: Tensor | None = None, base: int = 0
) -> Row:
    """Returns the row of matrices A, C [K, K] and vectors B_j [K], float64, of lags j = 0, 1, …; see `Row`.

    Args:
        t: time at which the network sees the state.
        C: None adds no noise.
        base: rows back.
    """
    terms = tuple((lag, tuple(column.tolist())) for lag, column in enumerate(B))
    return Row(float(t), _lines(A), terms, 0.0 if C is None else _lines(C), base)


def _lines(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))


@dataclass(frozen=True)
class Tableau:
    """The rows of a sampler, in the order in which they run.

    Attributes:
        rows: at least one row.
        parameterization: of f: x0, eps, v, score or flow.
        clip: bound c of a static clip of x̂₀ to [−c, c] before f is formed; None for none.
        components: K of the process.
        steps: rows of each step of the sampler, of which only the last leads to the next time of the grid; by default a
            row that goes back to an earlier base makes one step with all rows since then, and any other row is a step.
    """

    rows: tuple[Row, ...]
    parameterization: str
    clip: float | None = None
    components: int = 1
    steps: tuple[int, ...] = ()

    def evaluated(self) -> tuple[bool, ...]:
        """Returns for each row whether the network is evaluated: where that row or a later one reads its prediction."""
        found = [False] * len(self.rows)
        for r, row in enumerate(self.rows):
            for lag, _ in row.B:
                if 0 <= lag <= r:
                    found[r - lag] = True
        return tuple(found)

    def ends(self, end_time: float = 0.0) -> tuple[float, ...]:
        """Returns the time that each row goes to, with `end_time` that of the state after the last row."""
        after = [*[row.t for row in self.rows[1:]], end_time]
        return tuple([s if row.to is None else row.to for row, s in zip(self.rows, after, strict=True)])

    def rows_of_steps(self) -> tuple[int, ...]:
        """Returns how many rows each step has."""
        if self.steps:
            return self.steps
        if all(row.base == 0 for row in self.rows):
            return (1,) * len(self.rows)
        firsts = [r - row.base for r, row in enumerate(self.rows)]
        counts, size = [], 0
        last = len(firsts)
        # A row ends a step where no later row goes back to it or before it.
        reach = [0] * last
        for r in reversed(range(last)):
            reach[r] = min(firsts[r], reach[r + 1]) if r + 1 < last else firsts[r]
        for r in range(last):
            size += 1
            if r + 1 == last or reach[r + 1] > r:
                counts.append(size)
                size = 0
        return tuple(counts)


def checked_plan(plan: object, name: str, evaluations: int | None) -> Tableau:
    """Returns what a sampler planned, where it is a tableau of numbers with as many rows as it declares evaluations.

    Args:
        plan: what `plan` returned.
        name: of the sampler.
        evaluations: of the network, as it declares them; None where only a part of the grid is run.

    Raises:
        TrilemmaError: for anything else, with the row (counted from 1) that is at fault.
    """
    if not isinstance(plan, Tableau):
        raise TrilemmaError(
            f"{name}.plan returned a {type(plan).__name__}; return Tableau(rows, parameterization)"
        )
    if not isinstance(plan.rows, Sequence) or not all(isinstance(row, Row) for row in plan.rows):
        raise TrilemmaError(
            f"{name}.plan returned a tableau whose rows are no tuple of Row; make each Row(t, A, B)"
        )
    planned = sum(plan.evaluated())
    if evaluations is not None and plan.rows and planned != evaluations:
        silent = len(plan.rows) - planned
        raise TrilemmaError(
            f"{name}.plan returned {len(plan.rows)} rows"
            + (f", {silent} of them without an evaluation" if silent else "")
            + f", and {name}.nfe declares {evaluations} evaluations; plan one row for each evaluation, or declare `nfe`"
        )
    if plan.steps and (sum(plan.steps) != len(plan.rows) or min(plan.steps) < 1):
        raise TrilemmaError(
            f"{name}.plan says that its steps have {plan.steps} rows, which are not its {len(plan.rows)}; "
            "count the rows of each step"
        )
    for number, row in enumerate(plan.rows, 1):
        if not _is_finite(row):
            _refuse(row, f"{number} of {len(plan.rows)}", name)
    return plan


def _is_finite(row: Row) -> bool:
    # A sum is finite only where each of its terms is, and of plain numbers it costs little.
    if isinstance(row.A, float) and isinstance(row.C, float) and not row.D and row.to is None:
        total = row.t + row.A + row.C
        for _, coefficient in row.B:
            total += coefficient if isinstance(coefficient, float) else math.nan
        if math.isfinite(total):
            return True
    return all(math.isfinite(n) for value in _coefficients(row).values() for n in _numbers(value))


def _refuse(row: Row, place: str, name: str) -> None:
    for which, value in _coefficients(row).items():
        if not all(map(math.isfinite, _numbers(value))):
            raise TrilemmaError(
                f"{name}.plan returned {which} = {value!r} in row {place}, not finite; "
                "choose another grid, or repair the sampler"
            )


def _coefficients(row: Row) -> dict[str, Matrix | Vector]:
    """All numbers of a row, by what they are."""
    found: dict[str, Matrix | Vector] = {"t": row.t, "A": row.A, "C": row.C}
    found |= {f"B at lag {lag}": value for lag, value in row.B}
    found |= {f"D of {back} rows back": value for back, value in row.D}
    return found if row.to is None else found | {"to": row.to}


def _numbers(value: Matrix | Vector) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
        return
    for entry in value:
        yield from _numbers(entry)


def matrix(coefficient: Matrix, components: int) -> list[float]:
    """Returns a K×K coefficient row by row; a plain number a stands for a·I."""
    if isinstance(coefficient, int | float):
        return [float(coefficient) if i == j else 0.0 for i in range(components) for j in range(components)]
    if len(coefficient) != components or any(len(line) != components for line in coefficient):
        raise TrilemmaError(
            f"a tableau of {_components(components)} has the coefficient {coefficient!r}; write a plain number or "
            f"{components} rows of {components}"
        )
    return [float(entry) for line in coefficient for entry in line]


def vector(coefficient: Vector, components: int) -> list[float]:
    """Returns a coefficient of K numbers; a plain number stands for K = 1 alone."""
    entries = [coefficient] if isinstance(coefficient, int | float) else list(coefficient)
    if len(entries) != components:
        raise TrilemmaError(
            f"a tableau of {_components(components)} has the coefficient {coefficient!r}; write {components} "
            f"number{'s' if components > 1 else ''}"
        )
    return [float(entry) for entry in entries]


def _components(count: int) -> str:
    return f"{count} component{'s' if count > 1 else ''}"


def scalar(coefficient: Matrix | Vector) -> float:
    """Returns a coefficient of a tableau with one component as a plain number."""
    if not isinstance(coefficient, int | float):
        raise TrilemmaError(
            f"a tableau with one component has the coefficient {coefficient!r}; write a plain number"
        )
    return float(coefficient)
