"""Registers the MNIST data set, without and with captions."""

from trilemma.registry import DatasetSpec, Registry, hookimpl

_PAPER = "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998"


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="mnist",
            target="trilemma_plugins.mnist.dataset:MNIST",
            summary="handwritten digits, 28×28, 60,000 + 10,000, from the original IDX files",
            reference=_PAPER,
        )
    )
    registry.dataset(
        DatasetSpec(
            name="mnist-captions",
            target="trilemma_plugins.mnist.captions:CaptionedMNIST",
            summary="MNIST with captions of digit, boldness and slant, measured from the images",
            reference=_PAPER,
        )
    )
