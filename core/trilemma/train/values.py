"""Checks of single values of a recipe."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

from trilemma.errors import UsageError, shown


def typed(hint: Any, value: Any, key: str) -> Any:
    """Returns a value of the annotated type, an integer as a float where one is expected.

    Raises:
        UsageError: for a value of another type.
    """
    if typing.get_origin(hint) is types.UnionType:
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return typed(next(o for o in options if o is not type(None)), value, key)
    expected = typing.get_origin(hint) or hint
    if expected is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    wrong = isinstance(value, bool) and expected is not bool
    wrong |= isinstance(value, str) and expected is Sequence
    if wrong or not isinstance(value, expected):
        name = "a table" if dataclasses.is_dataclass(expected) else getattr(expected, "__name__", expected)
        raise UsageError(f"recipe: {key} = {shown(value)} has the wrong type; expected {name}")
    return value


def at_least(key: str, value: int, least: int) -> None:
    """Raises UsageError for a value below `least`."""
    if value < least:
        raise UsageError(f"recipe: {key} = {shown(value)} is too small; expected at least {least}")


def between(key: str, value: int, least: int, most: int) -> None:
    """Raises UsageError for a value outside [least, most]."""
    at_least(key, value, least)
    if value > most:
        raise UsageError(f"recipe: {key} = {shown(value)} is too large; expected at most {most}")


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    """Raises UsageError for a value that is not among the known ones."""
    if value not in known:
        raise UsageError(f"recipe: unknown {key} = {shown(value)}; expected one of {', '.join(known)}")


def holds(key: str, value: Any, condition: bool, expected: str) -> None:
    """Raises UsageError where a condition on a value does not hold."""
    if not condition:
        raise UsageError(f"recipe: {key} = {shown(value)} is out of range; expected {expected}")
