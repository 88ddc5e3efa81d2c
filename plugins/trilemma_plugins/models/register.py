"""Registers the bundled models."""

from trilemma.registry import ModelSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.model(
        ModelSpec(
            name="mnist",
            target="trilemma_plugins.models:mnist",
            summary="class-conditional handwritten digits, 28×28, v-prediction, 1.6M parameters",
            reference="recipe: trilemma_plugins/models/recipes/mnist.toml",
            default=True,
        )
    )
    registry.model(
        ModelSpec(
            name="vdm-mnist",
            target="trilemma_plugins.models:vdm_mnist",
            summary="class-conditional handwritten digits, 28×28, on a learned noise schedule",
            reference="recipe: trilemma_plugins/models/recipes/vdm-mnist.toml",
        )
    )
    registry.model(
        ModelSpec(
            name="cld-mnist",
            target="trilemma_plugins.models:cld_mnist",
            summary="class-conditional handwritten digits, 28×28, by critically damped Langevin diffusion",
            reference="recipe: trilemma_plugins/models/recipes/cld-mnist.toml",
        )
    )
