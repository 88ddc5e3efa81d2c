"""Registers the data set of image files, and the command that writes recipes for them."""

from trilemma.registry import CommandSpec, DatasetSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="images",
            target="trilemma_plugins.images.dataset:Images",
            summary="image files in a folder or zip, in one folder a class or in none",
            suggestion="trilemma_plugins.images.suggestion:suggest",
        )
    )
    registry.command(
        CommandSpec(
            name="new-recipe",
            target="trilemma_plugins.images.new_recipe:command",
            summary="Write a training recipe for a folder or zip of images.",
        )
    )
