"""The plugins of this process: scanned once, at first need.

TRILEMMA_PLUGINS         comma-separated: only these plugins of third parties are loaded; empty: none
TRILEMMA_STRICT_PLUGINS  1: a plugin that cannot be loaded is an error
TRILEMMA_TRACE_PLUGINS   1: tracebacks of plugins that fail, on stderr
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Sequence

from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError, nearest
from trilemma.registry.catalog import Catalog
from trilemma.registry.discovery import COMMAND_LINE, Candidate, installed
from trilemma.registry.loader import Loader
from trilemma.registry.plugin_record import PluginRecord

_lock = threading.RLock()
_catalog: Catalog | None = None
_scanning = False
_excluded: tuple[str, ...] = ()


def catalog() -> Catalog:
    """Returns the plugins of this process.

    Raises:
        UsageError: where a plugin that is to be left out does not exist.
        PluginUnavailable: for a plugin that cannot be loaded, under TRILEMMA_STRICT_PLUGINS=1.
    """
    global _catalog, _scanning
    found = _catalog
    if found is not None:
        return found
    with _lock:
        if _catalog is not None:
            return _catalog
        if _scanning:
            raise TrilemmaError("plugins cannot be looked up while they register; look up at first use")
        _scanning = True
        try:
            _catalog = Catalog(_scan())
        finally:
            _scanning = False
        return _catalog


def registered_name(made: type, kind: str | None = None) -> str:
    """Returns the name that a component's class is registered by, for a kind or for any; else the class's own."""
    known = catalog().by_target(kind, f"{made.__module__}:{made.__qualname__}")
    return known.address if known else made.__name__


def exclude(names: Sequence[str]) -> None:
    """Leaves plugins out, by entry point, distribution or distribution/entry point; before the first look-up.

    Raises:
        TrilemmaError: after the first look-up.
    """
    global _excluded
    with _lock:
        if _catalog is not None and set(names) - set(_excluded):
            raise TrilemmaError("plugins are already loaded; leave some out before the first look-up")
        _excluded = tuple(names)


def loaded() -> tuple[PluginRecord, ...]:
    """Returns the plugins of this process, none before the first look-up."""
    return _catalog.records if _catalog is not None else ()


def unmatched_allowed() -> tuple[str, ...]:
    """Returns the entries of TRILEMMA_PLUGINS that match no installed plugin."""
    allowed = _allowed()
    if not allowed:
        return ()
    known = frozenset().union(*(candidate.names for candidate in installed()))
    return tuple(name for name in allowed if name not in known)


def _scan() -> list[PluginRecord]:
    candidates = installed()
    _check_excluded(candidates)
    trace = (lambda text: print(text, file=sys.stderr)) if _flag("TRILEMMA_TRACE_PLUGINS") else None
    allowed = _allowed()
    loader = Loader(disabled=lambda candidate: _why_disabled(candidate, allowed), trace=trace)
    records = loader.load(candidates)
    if _flag("TRILEMMA_STRICT_PLUGINS"):
        for record in records:
            if record.status not in ("ok", "disabled"):
                raise PluginUnavailable(f"plugin {record.address} is {record.status}: {record.reason}")
    return records


def _why_disabled(candidate: Candidate, allowed: Collection[str] | None) -> str | None:
    if candidate.entry_point.value == COMMAND_LINE:
        return None
    if candidate.names & set(_excluded):
        return "left out by --no-plugin"
    if allowed is not None and not candidate.built_in and not candidate.names & set(allowed):
        return "not named in TRILEMMA_PLUGINS"
    return None


def _check_excluded(candidates: Sequence[Candidate]) -> None:
    known = frozenset().union(*(candidate.names for candidate in candidates))
    for name in _excluded:
        if name not in known:
            near = nearest(name, known)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"--no-plugin {name}: no such plugin; {guess}trilemma plugins lists them")


def _allowed() -> tuple[str, ...] | None:
    value = os.environ.get("TRILEMMA_PLUGINS")
    if value is None:
        return None
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")
