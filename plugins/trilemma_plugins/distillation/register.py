"""Registers the objectives of distillation."""

from trilemma.registry import ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.objective(
        ObjectiveSpec(
            name="progressive",
            target="trilemma_plugins.distillation.progressive:Progressive",
            summary="a student of N steps learns two steps of its teacher's 2N in one",
            reference="arXiv:2202.00512",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="consistency",
            target="trilemma_plugins.distillation.consistency:Consistency",
            summary="one network answers alike along the probability flow, with or without a teacher",
            reference="arXiv:2303.01469, arXiv:2310.14189",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="adversarial",
            target="trilemma_plugins.distillation.adversarial:Adversarial",
            summary="samples of few steps that a discriminator cannot tell from data",
            reference="arXiv:2311.17042, arXiv:2403.12015",
        )
    )
