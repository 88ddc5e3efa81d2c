"""Registers the data set of image files."""

from trilemma.plugins import DatasetSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="images",
            target="trilemma_plugins.images.dataset:Images",
            summary="image files in a folder or zip, one folder a class",
        )
    )
