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
    registry.model(
        ModelSpec(
            name="mnist-8",
            target="trilemma_plugins.models:mnist_8",
            summary="class-conditional handwritten digits, 28×28, in 8 steps, distilled from mnist",
            reference="recipe: trilemma_plugins/distillation/recipes/mnist.toml",
        )
    )
    registry.model(
        ModelSpec(
            name="recovery-mnist",
            target="trilemma_plugins.models:recovery_mnist",
            summary="an energy of class-conditional handwritten digits, 28×28, by chains of 30 steps",
            reference="recipe: trilemma_plugins/recovery/recipes/mnist.toml",
        )
    )
    registry.model(
        ModelSpec(
            name="mnist-4",
            target="trilemma_plugins.models:mnist_4",
            summary="class-conditional handwritten digits, 28×28, in 4 steps, distilled from mnist",
            reference="recipe: trilemma_plugins/distillation/recipes/mnist.toml",
        )
    )
    registry.model(
        ModelSpec(
            name="mnist-1",
            target="trilemma_plugins.models:mnist_1",
            summary="class-conditional handwritten digits, 28×28, in one step, distilled from mnist",
            reference="recipe: trilemma_plugins/distillation/recipes/mnist.toml",
        )
    )
    registry.model(
        ModelSpec(
            name="ddgan-mnist",
            target="trilemma_plugins.models:ddgan_mnist",
            summary="handwritten digits in 4 steps, a denoising diffusion GAN",
            reference="recipe: trilemma_plugins/ddgan/recipes/mnist.toml",
        )
    )
