"""Registers the training objectives."""

from trilemma.registry import ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.objective(
        ObjectiveSpec(
            name="simple",
            target="trilemma_plugins.objectives.simple:Simple",
            summary="squared error of x0, eps or v with uniform, truncated-SNR or min-SNR weighting",
            reference="arXiv:2006.11239, arXiv:2202.00512, arXiv:2303.09556",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="cross-entropy",
            target="trilemma_plugins.objectives.cross_entropy:CrossEntropy",
            summary="cross-entropy of classifiers, of noised data too, and of feature networks",
            reference="arXiv:1512.00567, arXiv:2105.05233",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="contrastive",
            target="trilemma_plugins.objectives.contrastive:Contrastive",
            summary="cross-entropy of the pairs of images and texts in a batch, both ways (InfoNCE)",
            reference="arXiv:1807.03748, arXiv:2103.00020",
        )
    )
