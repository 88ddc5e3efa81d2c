"""The report of a fusion: what was replaced and what was left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

# Modules that the text names of those left for one reason.
NAMED: Final = 3


@dataclass(frozen=True)
class Fused:
    """One pattern that an operator replaced, in the forward of the module of that name."""

    module: str
    pattern: str


@dataclass(frozen=True)
class Left:
    """One place that stays as it was, and why."""

    module: str
    why: str


@dataclass
class FusionReport:
    """The report of `trilemma.fuse`: the patterns it replaced in a network, and those it left, with the reason.

    Attributes:
        fused: the patterns that operators replaced.
        left: every convolution, GroupNorm, LayerNorm, RMSNorm, SiLU, GELU and attention among the modules that none
            replaced, and modules whose forward could not be followed.
    """

    fused: list[Fused] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def __str__(self) -> str:
        counts = Counter(entry.pattern for entry in self.fused)
        total = ", ".join(f"{count} × {pattern}" for pattern, count in counts.items()) or "nothing"
        lines = [f"fused {total}"]
        places: dict[str, list[str]] = {}
        for entry in self.left:
            places.setdefault(entry.why, []).append(entry.module or "the network itself")
        lines += [f"left {_listed(names)}: {why}" for why, names in places.items()]
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
