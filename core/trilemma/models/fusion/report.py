"""The report of a fusion: what was replaced and what was left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Modules that the text names of those left for one reason.
NAMED: Final = 3
CONVOLUTION, ATTENTION, NORM, LAYER_NORM = "3×3 convolution", "attention", "GroupNorm", "LayerNorm"
GEGLU, SWIGLU = "GEGLU", "SwiGLU"
MODULATED, ACTIVATED = " + scale and shift", " + SiLU"
# The operator that computes each pattern.
OPERATOR_OF: Final = {
    CONVOLUTION: "conv3x3",
    ATTENTION: "attention",
    **{
        NORM + modulated + activated: "group_norm_act"
        for modulated in ("", MODULATED)
        for activated in ("", ACTIVATED)
    },
    GEGLU: "glu",
    SWIGLU: "glu",
    LAYER_NORM: "layer_norm",
    LAYER_NORM + MODULATED: "layer_norm",
}


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
        fused: the patterns that operators replace.
        left: every convolution, GroupNorm, LayerNorm, RMSNorm, SiLU, GELU and attention among the modules that none
            replaces, and modules whose forward could not be followed.
        ran: the number of times that each pattern ran by its operator in the example, or in the network's first call;
            None before.
        as_written: modules of `fused` that ran as they are written in that call, with the reason.
    """

    fused: list[Fused] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    ran: dict[str, int] | None = None
    as_written: list[Left] = field(default_factory=list)

    @property
    def calls(self) -> dict[str, int] | None:
        """Returns the calls of each operator, as the dispatcher counts them; None before `ran` is known."""
        if self.ran is None:
            return None
        counts: Counter[str] = Counter()
        for pattern, count in self.ran.items():
            counts[OPERATOR_OF[pattern]] += count
        return dict(counts)

    def __str__(self) -> str:
        lines = [f"fused {_counted(Counter(entry.pattern for entry in self.fused))}"]
        lines += _by_reason("left", self.left)
        if self.ran is not None and self.fused:
            lines += [f"ran {_counted(self.ran)}", *_by_reason("ran as written", self.as_written)]
        return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in counts.items()) or "nothing"


def _by_reason(what: str, entries: list[Left]) -> list[str]:
    places: dict[str, list[str]] = {}
    for entry in entries:
        places.setdefault(entry.why, []).append(entry.module or "the network itself")
    return [f"{what} {_listed(names)}: {why}" for why, names in places.items()]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
