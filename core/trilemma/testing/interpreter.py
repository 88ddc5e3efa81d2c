"""The plain interpreter of a tableau: it keeps every state and every prediction, and reads each row literally."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from trilemma.interfaces.tableau import Matrix, Row, Tableau, Vector, scalar

# A number, a tensor of any shape, or anything that a caller's `predict` and products take.
State = TypeVar("State")


def _times_number(coefficient: Matrix | Vector, operand: Any) -> Any:
    return scalar(coefficient) * operand


def interpret(
    tableau: Tableau,
    predict: Callable[[int, Row, State], Any],
    z: State,
    noise: Callable[[int], Any] | None = None,
    *,
    on_states: Callable[[Matrix, Any], Any] = _times_number,
    on_predictions: Callable[[Vector, Any], Any] = _times_number,
) -> list[State]:
    """Returns the states before the first row and after each.

        z_{r+1} = A z_base + Σ_k D_k z_{r−k} + Σ_j B_j f_{r−j} + C ξ_r

    A row whose prediction nobody reads is not evaluated. A clip, no part of the combination, is left to `predict`.

    Args:
        predict: function of a row's number, the row and the state that the network sees; returns the prediction f.
        z: the first state.
        noise: function of a row's number; returns ξ. None leaves noise out, as does a row with C = 0.
        on_states: product of A, D_k or C with a state; of plain numbers by default, for one component.
        on_predictions: product of B_j with a prediction, likewise.
    """
    states: list[Any] = [z]
    predictions: list[Any] = []
    evaluated = tableau.evaluated()
    for r, row in enumerate(tableau.rows):
        predictions.append(predict(r, row, states[r]) if evaluated[r] else None)
        new = on_states(row.A, states[r - row.base])
        for back, weight in row.D:
            new = new + on_states(weight, states[r - back])
        for lag, coefficient in row.B:
            new = new + on_predictions(coefficient, predictions[r - lag])
        if noise is not None and row.C != 0.0:
            new = new + on_states(row.C, noise(r))
        states.append(new)
    return states
