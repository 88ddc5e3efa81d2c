"""Every component that loaded plugins brought, found by kind and name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trilemma.errors import PluginUnavailable, UsageError, nearest
from trilemma.registry.discovery import BUILT_IN, normalized
from trilemma.registry.plugin_record import PluginRecord
from trilemma.registry.specs import KINDS, ComponentSpec


@dataclass(frozen=True)
class Component:
    """A registered component and the plugin that brought it.

    Attributes:
        spec: what was registered.
        plugin: the record of its plugin.
        address: shortest name that means it: its name, or distribution/name where another one has the same.
    """

    spec: ComponentSpec
    plugin: PluginRecord
    address: str

    @property
    def built_in(self) -> bool:
        return normalized(self.plugin.distribution) == BUILT_IN


class Catalog:
    """The records of all plugins and the components of those that loaded.

    Attributes:
        records: one an entry point.
    """

    def __init__(self, records: Sequence[PluginRecord]) -> None:
        self.records = tuple(records)
        found: dict[tuple[str, str], list[PluginRecord]] = {}
        for record in self.records:
            for spec in record.components:
                found.setdefault((spec.kind, spec.name), []).append(record)
        self._components = [
            Component(spec, record, spec.name if len(found[spec.kind, spec.name]) == 1 else qualified)
            for record in self.records
            for spec in record.components
            for qualified in [f"{record.distribution}/{spec.name}"]
        ]

        self._targets: dict[str, list[Component]] = {}
        for entry in self.components():
            self._targets.setdefault(getattr(entry.spec, "target", ""), []).append(entry)

    def components(self, kind: str | None = None) -> list[Component]:
        """Returns the components of a kind, or all, by kind and address."""
        chosen = [entry for entry in self._components if kind is None or entry.spec.kind == kind]
        return sorted(chosen, key=lambda entry: (KINDS.index(entry.spec.kind), entry.address))

    def find(self, kind: str, name: str) -> Component:
        """Returns the component that a name or distribution/name means.

        Raises:
            PluginUnavailable: for an unknown name, with the nearest ones and all known ones.
            UsageError: for a name that two distributions have.
        """
        matches = [entry for entry in self.components(kind) if _means(entry, name)]
        if len(matches) > 1:
            choices = " or ".join(entry.address for entry in matches)
            raise UsageError(f"{kind} {name!r} is in {len(matches)} distributions; write {choices}")
        if not matches:
            raise PluginUnavailable(self._unknown(kind, name))
        return matches[0]

    def search(self, name: str) -> list[Component]:
        """Returns the components of any kind that a name or distribution/name means."""
        return [entry for entry in self.components() if _means(entry, name)]

    def by_target(self, kind: str | None, target: str) -> Component | None:
        """Returns the component of a kind, or of any, whose target this is."""
        return next(
            (entry for entry in self._targets.get(target, ()) if kind in (None, entry.spec.kind)), None
        )

    def _unknown(self, kind: str, name: str) -> str:
        for record in self.records:
            if record.status != "ok" and name in (record.name, f"{record.distribution}/{record.name}"):
                return f"{kind} {name!r}: plugin {record.address} is {record.status}: {record.reason}"
        known = [entry.address for entry in self.components(kind)]
        if not known:
            return f"unknown {kind} {name!r}: no {kind} is installed; pip install trilemma or a plugin"
        near = nearest(name, known, n=3)
        guess = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        bad = sum(record.status not in ("ok", "disabled") for record in self.records)
        broken = f"; plugins that did not load: {bad} (see trilemma plugins)" if bad else ""
        editable = "; a plugin in editable mode must be installed again after its entry points change"
        meant = not near and any(not entry.built_in for entry in self._components)
        return f"unknown {kind} {name!r}; {guess}known: {', '.join(known)}{broken}{editable if meant else ''}"


def _means(entry: Component, name: str) -> bool:
    distribution, slash, bare = name.rpartition("/")
    if bare != entry.spec.name:
        return False
    return not slash or normalized(distribution) == normalized(entry.plugin.distribution)
