"""Loads plugins one at a time, so that a bad one breaks nothing but itself."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from trilemma.errors import described, message_of, one_line
from trilemma.registry.discovery import Candidate
from trilemma.registry.hooks import API_VERSION, hook_of
from trilemma.registry.plugin_record import PluginRecord
from trilemma.registry.quarantine import EndedProcess, UserInterrupt, quarantine
from trilemma.registry.registry import Registry
from trilemma.registry.requirements import unmet_requirement
from trilemma.registry.specs import ComponentSpec


@dataclass
class Loader:
    """Turns candidates into records.

    A plugin is imported only if it is wanted and its requirement on trilemma holds. Its hook writes to a registry of
    its own. The components count only if the hook returns and takes no name that is taken.

    Attributes:
        disabled: why the user does not want a candidate, None where it is wanted.
        trace: called with the traceback of a plugin that failed.
    """

    disabled: Callable[[Candidate], str | None] = lambda candidate: None
    trace: Callable[[str], None] | None = None
    _built_in: set[tuple[str, str]] = field(default_factory=set)
    _taken: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def load(self, candidates: Iterable[Candidate]) -> list[PluginRecord]:
        """Loads each candidate and returns its record, in their order: built-in ones come first."""
        return _note_shared_names([self._load(candidate) for candidate in candidates])

    def _load(self, candidate: Candidate) -> PluginRecord:
        entry_point = candidate.entry_point
        record = PluginRecord(candidate.distribution, candidate.version, entry_point.name, entry_point.value)
        if unwanted := self.disabled(candidate):
            return replace(record, status="disabled", reason=unwanted)
        if not candidate.built_in and (unmet := unmet_requirement(candidate.requires)):
            return replace(record, status="incompatible", reason=unmet)
        torch_before, start = "torch" in sys.modules, time.perf_counter()
        record = self._register(candidate, record)
        return replace(
            record,
            milliseconds=(time.perf_counter() - start) * 1e3,
            imported_torch=not torch_before and "torch" in sys.modules,
        )

    def _register(self, candidate: Candidate, record: PluginRecord) -> PluginRecord:
        try:
            watched: AbstractContextManager[list[str]] = (
                nullcontext([]) if candidate.built_in else quarantine()
            )
            with watched as changed:
                module = candidate.entry_point.load()
                api = getattr(module, "TRILEMMA_API", API_VERSION)
                if api != API_VERSION:
                    reason = one_line(f"needs API version {api}, this trilemma has {API_VERSION}")
                    return replace(record, status="incompatible", reason=f"{reason}; upgrade the older one")
                components = _call_hook(module)
        except UserInterrupt:
            raise
        except BaseException as error:
            # A sys.exit at import must not end the program either.
            if candidate.built_in and isinstance(error, KeyboardInterrupt):
                raise
            if self.trace is not None:
                self.trace(f"{record.address}: {traceback.format_exc()}")
            return replace(record, status="failed", reason=_reason(candidate, error))
        if changed:
            record = replace(record, reason=f"while loading it changed {', '.join(changed)}; put back")
        if clash := self._clash(candidate, components):
            return replace(record, status="clash", reason=clash)
        for component in components:
            self._taken[candidate.distribution, component.kind, component.name] = record.name
            if candidate.built_in:
                self._built_in.add((component.kind, component.name))
        return replace(record, components=components)

    def _clash(self, candidate: Candidate, components: Collection[ComponentSpec]) -> str | None:
        for component in components:
            sibling = self._taken.get((candidate.distribution, component.kind, component.name))
            if sibling is not None:
                return f"{component.kind} {component.name!r} is taken by {candidate.distribution}/{sibling}"
            if (component.kind, component.name) in self._built_in:
                return f"{component.kind} {component.name!r} is built in; its author must choose another name"
        return None


def _call_hook(module: object) -> tuple[ComponentSpec, ...]:
    """Returns what the hook of one plugin registers."""
    registry = Registry()
    hook_of(module)(registry)
    return registry.staged


def _note_shared_names(records: list[PluginRecord]) -> list[PluginRecord]:
    """Says on a plugin which of its names another distribution has too, so that they must be qualified."""
    owners: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for spec in record.components:
            owners.setdefault((spec.kind, spec.name), []).append(record.distribution)
    noted = []
    for record in records:
        notes = [
            f"{spec.kind} {spec.name!r} is also in {other}: write {record.distribution}/{spec.name}"
            for spec in record.components
            for other in owners[spec.kind, spec.name]
            if other != record.distribution
        ]
        reasons = [record.reason, *notes] if record.reason else notes
        noted.append(replace(record, reason="; ".join(reasons)) if notes else record)
    return noted


def _reason(candidate: Candidate, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str) and error.name:
        if f"{candidate.entry_point.module}.".startswith(f"{error.name}."):
            return one_line(f"its module {error.name!r} is not there; install {candidate.distribution} again")
        return one_line(f"the module {error.name!r} is not installed; install what the plugin requires")
    if isinstance(error, SystemExit):
        return f"it called sys.exit({message_of(error)}) while loading; its author must repair it"
    if isinstance(error, EndedProcess):
        return message_of(error)
    return described(error)
