"""The metrics of this family, and their feature networks."""

from __future__ import annotations

from trilemma.registry import FeaturesSpec, MetricSpec, ModelSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.metric(
        MetricSpec(
            name="frechet",
            target="trilemma_plugins.metrics.frechet:FrechetDistance",
            summary="Fréchet distance between Gaussian fits of the features",
            reference="arXiv:1706.08500",
        )
    )
    registry.metric(
        MetricSpec(
            name="precision",
            target="trilemma_plugins.metrics.manifold:Precision",
            summary="fraction of the samples inside the k-nearest-neighbour manifold of the data",
            reference="arXiv:1904.06991",
        )
    )
    registry.metric(
        MetricSpec(
            name="recall",
            target="trilemma_plugins.metrics.manifold:Recall",
            summary="fraction of the data inside the k-nearest-neighbour manifold of the samples",
            reference="arXiv:1904.06991",
        )
    )
    registry.metric(
        MetricSpec(
            name="class-agreement",
            target="trilemma_plugins.metrics.agreement:ClassAgreement",
            summary="fraction of the samples the classifier gives the class they were asked to have",
        )
    )
    registry.metric(
        MetricSpec(
            name="text-agreement",
            target="trilemma_plugins.metrics.text_agreement:TextAgreement",
            summary="fraction of the samples whose own text fits best among 100",
            reference="arXiv:2103.00020",
        )
    )
    registry.metric(
        MetricSpec(
            name="reconstruction",
            target="trilemma_plugins.metrics.reconstruction:Reconstruction",
            summary="PSNR, SSIM and Fréchet distance of images that went through an autoencoder",
        )
    )
    registry.metric(
        MetricSpec(
            name="psnr",
            target="trilemma_plugins.metrics.pairs:PeakSignalToNoise",
            summary="PSNR of samples beside the images that they were drawn for, in decibels",
        )
    )
    registry.metric(
        MetricSpec(
            name="ssim",
            target="trilemma_plugins.metrics.pairs:StructuralSimilarity",
            summary="structural similarity of samples and the images that they were drawn for",
        )
    )
    registry.metric(
        MetricSpec(
            name="perceptual",
            target="trilemma_plugins.metrics.pairs:Perceptual",
            summary="distance of samples from the images that they were drawn for, in a network's convolutions",
            reference="arXiv:1801.03924",
        )
    )
    registry.metric(
        MetricSpec(
            name="mnist-features",
            target="trilemma_plugins.metrics.features:MnistFeatures",
            summary="feature network of the other metrics: a classifier of MNIST digits, 64 features",
        )
    )
    registry.metric(
        MetricSpec(
            name="image-features",
            target="trilemma_plugins.metrics.features:ImageFeatures",
            summary="feature network of images of any size: a classifier of CIFAR-10, 192 features",
            default_features=True,
        )
    )
    registry.features(
        FeaturesSpec(
            name="digit-network",
            target="trilemma_plugins.metrics.network:DigitNetwork",
            summary="three convolutions and two linear layers on 28×28 pixels, 64 features",
        )
    )
    registry.features(
        FeaturesSpec(
            name="image-network",
            target="trilemma_plugins.metrics.image_network:ImageNetwork",
            summary="eight convolutions with two residual pairs on images of any size, 192 features",
        )
    )
    registry.features(
        FeaturesSpec(
            name="matching-network",
            target="trilemma_plugins.metrics.matching_network:MatchingNetwork",
            summary="vectors of images and of texts, whose products say how well they fit",
            reference="arXiv:2103.00020",
        )
    )
    registry.model(
        ModelSpec(
            name="mnist-features",
            target="trilemma_plugins.metrics:weights",
            summary="features of handwritten digits: a classifier's 64 penultimate activations",
        )
    )
    registry.model(
        ModelSpec(
            name="image-features",
            target="trilemma_plugins.metrics:image_weights",
            summary="features of images of any size: a classifier's 192 penultimate activations",
        )
    )
