"""Installed plugins, found before any of them is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points

from trilemma.errors import one_line
from trilemma.version import __version__

GROUP = "trilemma"
# The distribution whose plugins are built in.
BUILT_IN = "trilemma"
# The core's own plugin.
COMMAND_LINE = "trilemma.cli.commands"


@dataclass(frozen=True)
class Candidate:
    """An entry point of the group, with its distribution.

    Attributes:
        distribution, version: who declares it.
        entry_point: name and module.
        requires: the distribution's `Requires-Dist` lines.
    """

    distribution: str
    version: str
    entry_point: EntryPoint
    requires: tuple[str, ...] = ()

    @property
    def built_in(self) -> bool:
        """True for a plugin of Trilemma's own; its names cannot be taken."""
        return normalized(self.distribution) == BUILT_IN

    @property
    def names(self) -> frozenset[str]:
        """The names that users may give this plugin: its entry point, its distribution, or distribution/entry point."""
        distribution, name = normalized(self.distribution), self.entry_point.name
        return frozenset({name, distribution, self.distribution, f"{distribution}/{name}"})


def installed() -> list[Candidate]:
    """Returns every entry point of the group by (distribution, name), built-in ones first.

    The command line comes before all others and needs no installation: it is the core's own plugin.
    """
    own = Candidate(BUILT_IN, __version__, EntryPoint("cli", COMMAND_LINE, GROUP))
    # Metadata are slow to read, so that each distribution is read once.
    described: dict[int, tuple[str | None, str | None, tuple[str, ...]]] = {}
    found = []
    for entry_point in _entry_points():
        distribution = entry_point.dist
        if id(distribution) not in described:
            described[id(distribution)] = _describe(distribution)
        name, version, requires = described[id(distribution)]
        package = re.split(r"[.:]", entry_point.value)[0]
        entry_point = EntryPoint(one_line(entry_point.name, 80), entry_point.value, GROUP)
        found.append(
            Candidate(one_line(name or package, 80), one_line(version or "?", 40), entry_point, requires)
        )
    found.sort(key=lambda one: (not one.built_in, normalized(one.distribution), one.entry_point.name))
    return [own, *found]


def normalized(distribution: str) -> str:
    """Returns the form in which the names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _entry_points() -> Iterable[EntryPoint]:
    """The entry points of the group; where the file of one distribution is damaged, those of all others."""
    try:
        return entry_points(group=GROUP)
    except Exception:
        # Other people's files may be damaged.
        found: dict[tuple[str, str], EntryPoint] = {}
        for distribution in distributions():
            with suppress(Exception):
                name = normalized(distribution.metadata["Name"] or "")
                for entry_point in distribution.entry_points.select(group=GROUP):
                    found.setdefault((name, entry_point.name), entry_point)
        return found.values()


def _describe(distribution: Distribution | None) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Name, version and requirements that a distribution gives itself; None for what damaged metadata do not say."""
    try:
        assert distribution is not None
        metadata = distribution.metadata
        return metadata["Name"], metadata["Version"], tuple(distribution.requires or ())
    except Exception:
        # Other people's files may be damaged.
        return None, None, ()
