"""Processes that are installed."""

from __future__ import annotations

from collections.abc import Iterator

from trilemma.errors import TrilemmaError
from trilemma.interfaces.process import Process
from trilemma.lookup import build
from trilemma.registry import catalog
from trilemma.testing.local import LOCAL


def processes_of_one_component() -> Iterator[Process]:
    """Yields the local processes, then those that plugins bring and that can be built by their name."""
    yield from LOCAL
    for component in catalog().components("process"):
        try:
            process: Process = build("process", component.address)[0]
        except TrilemmaError:
            continue
        if process.components == 1:
            yield process
