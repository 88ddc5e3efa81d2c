"""Registers the objective that noises the images which stages of cascades are told."""

from trilemma.registry import ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.objective(
        ObjectiveSpec(
            name="conditioning-augmentation",
            target="trilemma_plugins.cascades.augmentation:ConditioningAugmentation",
            summary="another objective on noised and blurred images, the level told, for stages of cascades",
            reference="arXiv:2106.15282",
        )
    )
