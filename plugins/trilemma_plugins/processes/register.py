"""Registers the processes."""

from trilemma.plugins import Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    pass
