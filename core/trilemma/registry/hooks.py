"""The hook that every plugin implements."""

from __future__ import annotations

import pluggy

from trilemma.registry.registry import Registry

API_VERSION = 1  # a plugin module may set TRILEMMA_API to the version it was written for

hookspec = pluggy.HookspecMarker("trilemma")
hookimpl = pluggy.HookimplMarker("trilemma")


class Hooks:
    """The hook specifications."""

    @hookspec
    def trilemma_register(self, registry: Registry) -> None:
        """Called once a process with a registry to which the plugin adds its components."""
