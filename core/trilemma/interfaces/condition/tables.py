"""Conditions from the tables of a card or a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from trilemma.errors import UsageError, nearest, shown
from trilemma.interfaces.condition.condition import Condition
from trilemma.interfaces.condition.image import ImageCondition
from trilemma.interfaces.condition.label import ClassCondition
from trilemma.interfaces.condition.scalar import ScalarCondition
from trilemma.interfaces.condition.text import TextCondition

KINDS: dict[str, type[Condition]] = {
    made.kind: made for made in (ClassCondition, ScalarCondition, ImageCondition, TextCondition)
}
_WORDS = {
    "bool": "true or false",
    "int": "a whole number of at least 0",
    "int | None": "a label, or true for a null of its own",
    "float": "a number",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[str, ...]": "a list of names",
}
# Names that a network receives for something else.
_TAKEN = ("z", "t", "to", "self")


def conditions_from(tables: Sequence[Mapping[str, Any] | Condition]) -> tuple[Condition, ...]:
    """Returns the conditions that tables describe.

        conditions_from([
            {"kind": "class", "name": "class", "size": 10, "null": True},
            {"kind": "scalar", "name": "level", "low": 0, "high": 1, "null": True},
            {"kind": "image", "name": "low", "shape": [1, 14, 14], "resize": "bilinear"},
            {"kind": "text", "name": "text", "encoder": "name", "form": "sequence", "length": 32, "null": True},
        ])

    The other keys of a table are the fields of the kind's class. `null` says whether there is a null, whose label is
    `size` for a class; `names` of a class stands for its `size`. The name is the kind where it is not given.

    Args:
        tables: one a condition; a condition stands for itself.

    Raises:
        UsageError: for an unknown kind or key, a missing key or a bad value, or two conditions that are told to the
            network under one name.
    """
    if isinstance(tables, str | Mapping) or not isinstance(tables, Sequence):
        raise UsageError(f"conditions={shown(tables)} is no list of tables; give one table a condition")
    found = tuple(_condition(table) for table in tables)
    told: set[str] = set(_TAKEN)
    for condition in found:
        for keyword in condition.keywords:
            if keyword in told:
                raise UsageError(
                    f"conditions: the name {keyword!r} of {condition.name!r} is taken; give it another name"
                )
            told.add(keyword)
    return found


def _condition(table: Mapping[str, Any] | Condition) -> Condition:
    if isinstance(table, Condition):
        return table
    if not isinstance(table, Mapping):
        raise UsageError(
            f"conditions: {shown(table)} is no table; give kind, name and the options of the kind"
        )
    options = dict(table)
    kind = options.pop("kind", None)
    made = KINDS.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise UsageError(f"conditions: kind={shown(kind)} is unknown; choose from {', '.join(KINDS)}")
    name = options.setdefault("name", kind)
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(f"conditions: name={shown(name)} is no name; give letters, digits and _")
    if kind == "class":
        _complete(options)
    known = {field.name: field for field in fields(made)}
    for key, value in options.items():
        if key not in known:
            near = nearest(key, known)
            advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"condition {name!r} of kind {kind} has no key {key!r}; {advice}")
        options[key] = _checked(name, key, value, str(known[key].type))
    for key, entry in known.items():
        if entry.default is MISSING and key not in options:
            raise UsageError(f"condition {name!r} of kind {kind} needs the key {key!r}; give it")
    return made(**options)


def _complete(options: dict[str, Any]) -> None:
    """Fills in the size and the null of a class."""
    names = options.get("names")
    if isinstance(names, Sequence) and not isinstance(names, str):
        options["names"] = tuple(names)
        options.setdefault("size", len(names))
    null = options.get("null")
    if isinstance(null, bool):
        options["null"] = options.get("size") if null else None


def _checked(name: str, key: str, value: Any, annotation: str) -> Any:
    """A value of a key, of the type that the field is declared with."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match annotation:
        case "bool":
            fits = isinstance(value, bool)
        case "int":
            fits = is_number and isinstance(value, int) and value >= 0
        case "int | None":
            fits = value is None or (is_number and isinstance(value, int) and value >= 0)
        case "float":
            fits = is_number
        case "tuple[int, ...]":
            fits = isinstance(value, list | tuple) and all(type(size) is int for size in value)
            value = tuple(value) if fits else value
        case "tuple[str, ...]":
            fits = isinstance(value, tuple) and all(isinstance(entry, str) for entry in value)
        case _:
            fits = True
    if not fits:
        raise UsageError(
            f"condition {name!r}: {key}={shown(value)} does not fit; give {_WORDS.get(annotation, annotation)}"
        )
    return value
