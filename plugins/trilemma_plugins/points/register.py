"""Registers a mixture of points in the plane, a network for it, and features to compare its samples in."""

from trilemma.registry import DatasetSpec, DenoiserSpec, MetricSpec, ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.dataset(
        DatasetSpec(
            name="mixture2d",
            target="trilemma_plugins.points.dataset:Mixture2D",
            summary="points of a mixture of normals on a ring or a grid, on 256 levels, its entropy known",
        )
    )
    registry.denoiser(
        DenoiserSpec(
            name="mlp",
            target="trilemma_plugins.points.mlp:MLP",
            summary="residual perceptron with time and class embedding, for data of a few numbers",
        )
    )
    registry.denoiser(
        DenoiserSpec(
            name="energy-mlp",
            target="trilemma_plugins.points.energy:EnergyMLP",
            summary="gradient of an energy, a residual perceptron of one number, for data of a few numbers",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="gan",
            target="trilemma_plugins.points.adversarial:Adversarial",
            summary="generator of one step against a discriminator of points: non-saturating, lazy R1",
            reference="arXiv:1406.2661, arXiv:1801.04406",
        )
    )
    registry.metric(
        MetricSpec(
            name="points-features",
            target="trilemma_plugins.points.features:PointsFeatures",
            summary="feature network of the other metrics for points: coordinates and random Fourier features",
        )
    )
