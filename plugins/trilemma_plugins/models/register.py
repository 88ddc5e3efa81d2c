"""Registers the bundled models."""

from trilemma.plugins import ModelSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.model(
        ModelSpec(
            name="mnist",
            target="trilemma_plugins.models:mnist",
            summary="class-conditional handwritten digits, 28×28, v-prediction, 1.6M parameters",
            reference="recipe: trilemma_plugins/models/recipes/mnist.toml",
        )
    )
