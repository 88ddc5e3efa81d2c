"""Requirements: a distribution may declare which versions of trilemma it works with."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trilemma.version import __version__

_OURS = re.compile(r"trilemma(?![\w.-])", re.IGNORECASE)


def unmet_requirement(requires: Iterable[str], version: str = __version__) -> str | None:
    """Returns the reason why a distribution with these `Requires-Dist` lines does not fit this trilemma, else None."""
    ours = [line for line in requires if _OURS.match(line.strip())]
    if not ours:
        return None

    # This import takes 50 ms and few distributions need it.
    from packaging.requirements import InvalidRequirement, Requirement

    for line in ours:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            return f"its requirement {line!r} cannot be read; ask its author to repair it"
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            return f"needs trilemma{requirement.specifier}, this is {version}; upgrade the older one"
    return None
