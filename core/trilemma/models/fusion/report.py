"""What a fusion did and what it left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


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
    """What `trilemma.fuse` replaced in a network, and what it left and why."""

    fused: list[Fused] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def __str__(self) -> str:
        counts = Counter(entry.pattern for entry in self.fused)
        total = ", ".join(f"{count} × {pattern}" for pattern, count in counts.items()) or "nothing"
        lines = [f"fused {total}"]
        lines += [f"left {entry.module or 'the network itself'}: {entry.why}" for entry in self.left]
        return "\n".join(lines)
