"""Registers the objective that noises the images which stages are told, and the command that makes cascades."""

from trilemma.registry import CommandSpec, ObjectiveSpec, Registry, hookimpl


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
    registry.command(
        CommandSpec(
            name="new-cascade",
            target="trilemma_plugins.cascades.new_cascade:command",
            summary="Put trained models together into a cascade, one model directory.",
            reference="arXiv:2106.15282",
        )
    )
