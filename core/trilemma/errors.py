"""Errors: one line each, with the exit code of the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST_MESSAGE = 299
LONGEST_VALUE = 80

# Anything without blanks that is longer than a value is shown.
_LONG = re.compile(rf"\S{{{LONGEST_VALUE + 1},}}")
_SCANNED = 100_000


class TrilemmaError(Exception):
    """An error that a user can act on: what was wrong, what was expected, what to do; see `one_line`."""

    exit_code = 1

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(one_line(entry) if isinstance(entry, str) else entry for entry in arguments))


class UsageError(TrilemmaError, ValueError):
    """An argument that cannot be used."""

    exit_code = 2


class PluginUnavailable(TrilemmaError):
    """A plugin that cannot be used here, as a package is missing or it failed to load."""

    exit_code = 3


class ConformanceError(TrilemmaError):
    """A plugin that does not do what it declares."""

    exit_code = 4


class ModelError(TrilemmaError):
    """A model, checkpoint or network that cannot be read, written or trusted."""


class DataError(TrilemmaError):
    """A data set that cannot be read."""


class OutputError(TrilemmaError):
    """A file that cannot be written."""


def shown(value: object, limit: int = LONGEST_VALUE) -> str:
    """Returns a value as a message shows it: its repr on one line, shortened in the middle to `limit` characters."""
    return shortened(printable(_bounded_repr(value)), limit)


def one_line(text: str, limit: int = LONGEST_MESSAGE) -> str:
    """Returns a message as one printable line of at most `limit` characters.

    Values that are echoed in it are shortened first. Where that is not enough, the text before the cure is shortened;
    the cure follows the last semicolon.
    """
    flat = printable(" ".join(shortened(text, _SCANNED).split()))
    if len(flat) <= limit:
        return flat
    flat = _LONG.sub(lambda match: shortened(match.group(), LONGEST_VALUE), flat)
    if len(flat) <= limit:
        return flat
    said, semicolon, cure = flat.rpartition("; ")
    if not semicolon or len(cure) > limit // 2:
        return shortened(flat, limit)
    return shortened(said, limit - len(cure) - 2) + semicolon + cure


def nearest(word: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Returns the at most n of the known words that are most like a word, best first."""
    return difflib.get_close_matches(word[:LONGEST_VALUE], list(known), n=n)


def shortened(text: str, limit: int) -> str:
    """Returns a text with its middle left out, where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    end = (limit - 1) // 3
    return f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def printable(text: str) -> str:
    """Returns a text with every character that a terminal would not show as itself escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _bounded_repr(value: object) -> str:
    """A repr that does not grow with a long string or container, and that never raises."""
    keep = 2 * LONGEST_VALUE
    if isinstance(value, str) and len(value) > 2 * keep:
        value = value[:keep] + value[-keep:]
    if isinstance(value, bytes) and len(value) > 2 * keep:
        value = value[:keep] + value[-keep:]
    if isinstance(value, int) and value.bit_length() > 4096:
        return f"an integer of {value.bit_length()} bits"
    if type(value) in (list, tuple) and len(value) > LONGEST_VALUE:  # type: ignore[arg-type]
        return f"{type(value).__name__} of {len(value)} values"  # type: ignore[arg-type]
    try:
        return repr(value)
    except Exception:
        # Other people's repr may raise anything.
        return f"{type(value).__name__} that cannot be shown"


def message_of(error: BaseException, limit: int = 200) -> str:
    """Returns the message of an exception in one line, even where its own text raises."""
    try:
        return one_line(str(error), limit)
    except BaseException as unreadable:
        return f"its message cannot be read: {type(unreadable).__name__}"


def described(error: BaseException, limit: int = 200) -> str:
    """Returns the type of an exception, with its message where it has one."""
    name, message = type(error).__name__, message_of(error, limit)
    return one_line(f"{name}: {message}" if message else name, limit)
