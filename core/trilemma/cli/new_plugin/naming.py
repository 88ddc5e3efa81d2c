"""The names of a new distribution, from the one that its author chose."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.metadata import packages_distributions

from trilemma.errors import UsageError
from trilemma.registry.discovery import normalized
from trilemma.registry.manager import catalog

_DISTRIBUTION = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# The prefix is customary in the name of a distribution and redundant in that of a component.
_PREFIX = "trilemma-"
_OURS = ("trilemma", "trilemma_plugins")


@dataclass(frozen=True)
class Names:
    """The names of a new distribution and of its parts.

    Attributes:
        distribution: as its author wrote it: "trilemma-two-step".
        component: what users write: "two-step".
        package: what Python imports: "trilemma_two_step".
        stem: beginning of the name of its class: "TwoStep".
    """

    distribution: str
    component: str
    package: str
    stem: str


def names_of(distribution: str) -> Names:
    """Returns the names that follow from that of a distribution.

    Raises:
        UsageError: for a malformed name, or one from which a taken name follows.
    """
    if not _DISTRIBUTION.fullmatch(distribution):
        rule = "letters, digits, '-', '_' and '.', from a letter to a letter or digit"
        raise UsageError(
            f"{distribution!r} cannot name a distribution; it takes {rule}, such as 'my-sampler'"
        )
    plain = normalized(distribution)
    component, package = plain.removeprefix(_PREFIX), plain.replace("-", "_")
    if not component[0].isalpha():
        raise UsageError(f"{distribution!r} would name a component {component!r}; begin that with a letter")
    if owner := _owner(package):
        raise UsageError(
            f"{distribution!r} would be imported as {package!r}, which is {owner}; choose another name"
        )
    for entry in catalog().search(component):
        owner = "built-in" if entry.built_in else f"installed {entry.plugin.distribution}'s"
        raise UsageError(f"{component!r} is the name of the {owner} {entry.spec.kind}; choose another name")
    stem = "".join(part.capitalize() for part in component.split("-"))
    return Names(distribution, component, package, stem)


def _owner(package: str) -> str:
    """Returns the present owner of this name, in words; "" where it is free."""
    if keyword.iskeyword(package):
        return "a word of Python's grammar"
    if package in sys.stdlib_module_names:
        return "a module of Python's own"
    if package in _OURS:
        return "Trilemma's own package"
    owners = packages_distributions().get(package)
    return f"a module of the installed {owners[0]}" if owners else ""
