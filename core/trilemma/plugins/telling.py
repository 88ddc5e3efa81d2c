"""Other people's exceptions and words, in one line that cannot fail."""

from __future__ import annotations

_LIMIT = 200
_READ = 20 * _LIMIT  # of a text of any length


def one_line(text: str, limit: int = _LIMIT) -> str:
    """Returns the text with runs of white space as one blank, without control characters, cut at `limit`."""
    flat = " ".join(text[:_READ].split())
    printable = "".join(letter if letter.isprintable() else "�" for letter in flat)
    return printable if len(printable) <= limit and len(text) <= _READ else printable[: limit - 1] + "…"


def message_of(error: BaseException) -> str:
    """Returns what an exception says in one line; one that cannot say it is no exception to this."""
    try:
        return one_line(str(error))
    except BaseException as unreadable:
        return f"its message cannot be read: {type(unreadable).__name__}"


def described(error: BaseException) -> str:
    """Returns the type of an exception, and what it says where it says something."""
    name, message = type(error).__name__, message_of(error)
    return one_line(f"{name}: {message}" if message else name)
