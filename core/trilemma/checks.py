"""Checks of the numbers that a user gives."""

from __future__ import annotations

import operator
from typing import Any

from trilemma.errors import UsageError, shown


def checked_integer(
    value: object,
    name: str,
    least: int | None = None,
    most: int | None = None,
    *,
    what: str = "is no integer in range",
) -> int:
    """Returns a value as a Python int, where it is one in [least, most].

    An integer is any value that Python takes for an index, such as NumPy's or a tensor of one integer. A bool is none.

    Args:
        value: what was given.
        name: how the message calls it, such as "seed".
        least, most: bounds, themselves allowed; None for none.
        what: fault of another value, for the message, such as "is not a number of samples".

    Raises:
        UsageError: for anything else.
    """
    found = as_integer(value)
    if found is None or (least is not None and found < least) or (most is not None and found > most):
        raise UsageError(f"{name}={shown(value)} {what}; give {_range(least, most)}")
    return found


def checked_number(
    value: object, name: str, least: float, most: float, *, what: str = "is out of range", above: bool = False
) -> float:
    """Returns a value as a Python float, where it is a number in [least, most]; see `checked_integer`.

    Args:
        above: leave `least` itself out.

    Raises:
        UsageError: for anything else, NaN included.
    """
    integer = as_integer(value)
    number: Any = getattr(value, "item", lambda: value)() if integer is None else integer
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if is_number and least <= number <= most and not (above and number == least):
        return float(number)
    bounds = f"above {least} up to {most}" if above else f"from {least} to {most}"
    raise UsageError(f"{name}={shown(value)} {what}; give a number {bounds}")


def as_integer(value: object) -> int | None:
    """Returns a value as a Python int, None where it is no integer; a bool is none."""
    if "bool" in str(getattr(value, "dtype", type(value).__name__)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def _range(least: int | None, most: int | None) -> str:
    if least is None:
        return "an integer" if most is None else f"an integer of at most {_power(most)}"
    if most is None:
        return f"an integer of at least {least}"
    return f"an integer from {least} to {_power(most)}"


def _power(bound: int) -> str:
    """2**k − 1 is written so."""
    bits = bound.bit_length()
    return f"2**{bits} - 1" if bits > 40 and bound == 2**bits - 1 else str(bound)
