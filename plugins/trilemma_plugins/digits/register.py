"""Registers scikit-learn's digits."""

from trilemma.registry import DatasetSpec, Registry, hookimpl


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
