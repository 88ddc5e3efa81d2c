"""Registers scikit-learn's digits, and a small autoencoder for them."""

from trilemma.registry import AutoencoderSpec, DatasetSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="digits",
            target="trilemma_plugins.digits.dataset:Digits",
            summary="handwritten digits, 8×8, 1,797 in all, from scikit-learn",
            reference="Alpaydin, Kaynak, Optical recognition of handwritten digits, UCI, 1998",
            extra="digits",
        )
    )
    registry.autoencoder(
        AutoencoderSpec(
            name="small-coder",
            target="trilemma_plugins.digits.coder:SmallCoder",
            summary="four convolutions, codes of half the sides, for images of a few pixels",
        )
    )
