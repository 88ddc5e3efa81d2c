"""Conditions on the command line: `--cond name=value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trilemma.errors import UsageError

if TYPE_CHECKING:
    from trilemma.interfaces.denoiser import Denoiser
    from trilemma.models.cascade import Cascade


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Returns the texts of the values by the names of their conditions.

    Raises:
        UsageError: for what is no pair, or a name that comes twice.
    """
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not name or not equals or not value:
            raise UsageError(
                f"--cond {pair!r} is not of the form name=value; write for example --cond class=7"
            )
        if name in found:
            raise UsageError(f"--cond {name} is given twice; give a list for several values: {name}=[0,1]")
        found[name] = value
    return found


def values(told: Mapping[str, str], network: Denoiser | Cascade) -> dict[str, Any]:
    """Returns the values that the texts mean for a network, which refuses those of conditions that it does not take."""
    return {
        name: network.conditions[name].parse(text) if name in network.conditions else text
        for name, text in told.items()
    }
