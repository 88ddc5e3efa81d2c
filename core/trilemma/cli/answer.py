"""The answer of a command in JSON, alone on stdout."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from trilemma.registry.quarantine import stdout_kept

_answers: TextIO | None = None


def print_json(value: Any, indent: int | None = None) -> None:
    """Prints a value as JSON on the stdout that the command began with."""
    stream = _answers or sys.stdout
    escaped = (getattr(stream, "encoding", None) or "").lower() not in ("utf-8", "utf8")
    print(json.dumps(value, ensure_ascii=escaped, indent=indent), file=stream, flush=True)


@contextmanager
def alone_on_stdout() -> Iterator[None]:
    """Sends all but `print_json` to stderr, so that no output of a plugin mixes with the answer."""
    global _answers
    before, stdout = _answers, sys.stdout
    try:
        own = stdout.fileno() == 1
    except (AttributeError, OSError, io.UnsupportedOperation):
        own = False
    answers = os.fdopen(os.dup(1), "w", encoding=stdout.encoding, errors=stdout.errors) if own else stdout
    _answers = answers
    try:
        with stdout_kept(), redirect_stdout(sys.stderr):
            yield
    finally:
        _answers = before
        if own:
            answers.close()
