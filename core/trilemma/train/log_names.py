"""Names under which the numbers of an update are logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from trilemma.errors import UsageError
from trilemma.interfaces.update import Update

T = TypeVar("T")
_TAKEN = ("loss", "grad_norm", "lr", "step", "images_per_second")


def named(updates: Sequence[Update], update: Update, values: Mapping[str, T]) -> dict[str, T]:
    """Returns numbers of an update by the names in the log: as they are for a sole update, else NAME_….

    Args:
        updates: all updates of the step.
        update: the one that the numbers are of.
        values: its numbers by name, such as `loss`.
    """
    prefix = f"{update.name}_" if len(updates) > 1 else ""
    return {prefix + name: value for name, value in values.items()}


def check_scalars(update: Update, scalars: Mapping[str, object]) -> None:
    """Raises UsageError for a number of an objective that has the name of one that every update logs."""
    for name in scalars:
        if name in _TAKEN:
            raise UsageError(
                f"update {update.name}: it logs {name!r}, which every log has; give it another name"
            )
