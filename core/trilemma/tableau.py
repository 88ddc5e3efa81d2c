"""A sampler written as numbers: one row a step, z ← A·z_base + Σ_j B_j·f_j + C·ξ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from trilemma.errors import TrilemmaError

Matrix: TypeAlias = (
    "float | tuple[tuple[float, ...], ...]"  # K×K, a plain number for a multiple of the identity
)
Vector: TypeAlias = "float | tuple[float, ...]"  # K, a plain number for K = 1


@dataclass(frozen=True)
class Row:
    """One evaluation of the network and the linear combination that follows it.

        z ← A·z_base + Σ_j B_j·f_j + C·ξ,   ξ ~ N(0, I)

    Attributes:
        t: time at which the network sees the state.
        A: coefficient of z_base.
        B: pairs (lag, coefficient); lag 0 is this row's prediction f, lag j that of j rows before.
        C: coefficient of fresh noise.
        base: z_base is the state of `base` rows back; 0 is the state the network sees.
    """

    t: float
    A: Matrix
    B: tuple[tuple[int, Vector], ...]
    C: Matrix = 0.0
    base: int = 0


@dataclass(frozen=True)
class Tableau:
    """The rows of a sampler, in the order in which they run.

    Attributes:
        rows: at least one row.
        parameterization: what f is: x0, eps, v, score or flow.
        clip: bound c of a static clip of x̂₀ to [−c, c] before f is formed; None for none.
        components: K of the process.
    """

    rows: tuple[Row, ...]
    parameterization: str
    clip: float | None = None
    components: int = 1


def matrix(coefficient: Matrix, components: int) -> list[float]:
    """A K×K coefficient row by row; a plain number stands for so many times the identity."""
    if isinstance(coefficient, int | float):
        return [float(coefficient) if i == j else 0.0 for i in range(components) for j in range(components)]
    if len(coefficient) != components or any(len(line) != components for line in coefficient):
        raise TrilemmaError(
            f"a tableau of {_components(components)} has the coefficient {coefficient!r}; write a plain number or "
            f"{components} rows of {components}"
        )
    return [float(entry) for line in coefficient for entry in line]


def vector(coefficient: Vector, components: int) -> list[float]:
    """A coefficient of K numbers; a plain number stands for K = 1 alone."""
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
    """A coefficient of a tableau with one component, as the number it is."""
    if not isinstance(coefficient, int | float):
        raise TrilemmaError(
            f"a tableau with one component has the coefficient {coefficient!r}; write a plain number"
        )
    return float(coefficient)
