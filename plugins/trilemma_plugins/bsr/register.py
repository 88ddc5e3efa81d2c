"""Registers the data set of degraded pictures, and the command that degrades a folder of them."""

from trilemma.registry import CommandSpec, DatasetSpec, Registry, hookimpl

_PAPER = "arXiv:2103.14006"


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="degraded",
            target="trilemma_plugins.bsr.dataset:Degraded",
            summary="images of a data set beside smaller ones, resized or degraded",
            reference=_PAPER,
        )
    )
    registry.command(
        CommandSpec(
            name="degrade",
            target="trilemma_plugins.bsr.degrade:command",
            summary="Degrade pictures: blur, down-sampling, noise and JPEG in a random order.",
            reference=_PAPER,
        )
    )
