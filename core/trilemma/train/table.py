"""Tables of a recipe: frozen records whose values are checked as soon as they exist."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from trilemma.errors import UsageError, nearest, shown
from trilemma.train.values import typed

# Metadata of a field that recipes have not always had: at its default it is left out of their fingerprint, so that a
# run that began before goes on.
LATER: Final = {"later": True}


class Table:
    """A table of a recipe: every value has its type as soon as the table exists.

    Raises:
        UsageError: for a value of another type.
    """

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for key in (f.name for f in dataclasses.fields(typing.cast(Any, self))):
            object.__setattr__(self, key, typed(hints[key], getattr(self, key), self.prefix + key))

    @classmethod
    def sorted_out(cls, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a parsed TOML table by the names of the fields; a table may gather keys of its own choice."""
        return table


@dataclasses.dataclass(frozen=True)
class Component(Table):
    """A component by spec string."""

    spec: str


def decisive(table: Any) -> dict[str, Any]:
    """Returns the values of a table by name, without later fields at their defaults."""
    found = {}
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if field.metadata.get("later") and value == _default(field):
            continue
        found[field.name] = decisive(value) if dataclasses.is_dataclass(value) else value
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def build_table(cls: type, table: Mapping[str, Any], prefix: str = "") -> Any:
    """Returns the record of a parsed TOML table.

    Raises:
        UsageError: for an unknown key, a missing or ill-typed value, or one out of range.
    """
    table = cls.sorted_out(table) if issubclass(cls, Table) else table
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            near = nearest(key, fields)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise UsageError(f"recipe: unknown key {shown(prefix + key)}; {hint}")
    for name, f in fields.items():
        if name not in table and f.default is f.default_factory is dataclasses.MISSING:
            raise UsageError(f"recipe: key {prefix + name!r} is missing; add it")
    return cls(**{key: _nested(hints[key], value, prefix + key) for key, value in table.items()})


def _nested(hint: Any, value: Any, key: str) -> Any:
    records = [entry for entry in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(entry)]
    if not records:
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"recipe: {key!r} must be a table; write [{key}]")
    return build_table(typing.cast(type, records[0]), value, key + ".")
