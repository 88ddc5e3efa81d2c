"""Images and rows that cannot be read, collected into one error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from trilemma.errors import DataError

_NAMED = 3

R = TypeVar("R")


class Unreadable(DataError):
    """Images, or rows about them, that cannot be read.

    Attributes:
        reasons: why, by the name or place of each.
    """

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


def of_each(names: Sequence[str], root: Path, views: Iterable[int], read: Callable[[int], R]) -> list[R]:
    """Returns the results of `read` for each of the views; view i is one of image i mod N.

    Raises:
        Unreadable: where it failed, with how many there are, the first names, and why.
    """
    answers: list[R] = []
    reasons: dict[str, str] = {}
    for view in views:
        try:
            answers.append(read(view))
        except Exception as error:
            # A damaged file can make Pillow and zipfile raise nearly anything.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            reasons[names[view % len(names)]] = " ".join(reason.split())[:60]
    if reasons:
        count = "" if len(reasons) == 1 else f"{len(reasons):,} of {len(names):,} images: "
        them = "it" if len(reasons) == 1 else "them"
        raise Unreadable(
            f"cannot read {count}{first_of(reasons)} in {root}; restore or remove {them}", reasons
        )
    return answers


def first_of(reasons: Mapping[str, str]) -> str:
    """Returns the first names, each with its reason, on one line."""
    some = [f"{name} ({reason})" for name, reason in list(reasons.items())[:_NAMED]]
    return ", ".join(some) + (", …" if len(reasons) > _NAMED else "")
