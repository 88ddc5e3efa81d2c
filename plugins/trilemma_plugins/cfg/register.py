"""Registers classifier-free guidance."""

from trilemma.registry import GuidanceSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.guidance(
        GuidanceSpec(
            name="cfg",
            target="trilemma_plugins.cfg.guidance:CFG",
            summary="classifier-free guidance; scale=1 is no guidance (the paper's w is scale - 1)",
            reference="arXiv:2207.12598",
        )
    )
