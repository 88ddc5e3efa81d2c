"""The fate of each installed plugin: its status and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trilemma.registry.specs import ComponentSpec

SLOW_MILLISECONDS = 1000.0

Status = Literal["ok", "failed", "disabled", "incompatible", "clash"]


@dataclass(frozen=True)
class PluginRecord:
    """One entry point with the result of loading it.

    Attributes:
        distribution, version: the distribution that declares the entry point.
        name: name of the entry point.
        module: module that the entry point names.
        status: "ok"; "failed" (cannot be imported, or raised); "disabled" (by the user); "incompatible"
            (needs another version); "clash" (takes a name that is taken). Only an "ok" plugin has components.
        reason: one line; why it is not "ok", or a note about one that is.
        milliseconds: time that importing and registering took.
        imported_torch: whether torch was not imported before it and was after it.
        components: those that it registered.
    """

    distribution: str
    version: str
    name: str
    module: str
    status: Status = "ok"
    reason: str = ""
    milliseconds: float = 0.0
    imported_torch: bool = False
    components: tuple[ComponentSpec, ...] = ()

    @property
    def slow(self) -> bool:
        """True where the plugin delays every command so much that a user notices."""
        return self.milliseconds > SLOW_MILLISECONDS

    @property
    def address(self) -> str:
        """distribution/entry point."""
        return f"{self.distribution}/{self.name}"
