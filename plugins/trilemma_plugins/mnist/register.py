"""Registers the MNIST data set."""

from trilemma.registry import DatasetSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="mnist",
            target="trilemma_plugins.mnist.dataset:MNIST",
            summary="handwritten digits, 28×28, 60,000 + 10,000, from the original IDX files",
            reference="LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998",
        )
    )
