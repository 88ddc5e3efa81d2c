"""A sampler written as numbers: one row a step, z ← A·z_base + Σ_j B_j·f_j + C·ξ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from trilemma.errors import TrilemmaError

Matrix: TypeAlias = "float | tuple[tuple[float, ...], ...]"  # K×K, a plain number for K = 1
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
        parameterization: what f is: x0, eps, v or score.
        clip: bound c of a static clip of x̂₀ to [−c, c] before f is formed; None for none.
        components: K of the process.
    """

    rows: tuple[Row, ...]
    parameterization: str
    clip: float | None = None
    components: int = 1


def scalar(coefficient: Matrix | Vector) -> float:
    """A coefficient of a tableau with one component, as the number it is."""
    if not isinstance(coefficient, int | float):
        raise TrilemmaError(
            f"a tableau with one component has the coefficient {coefficient!r}; write a plain number"
        )
    return float(coefficient)
