"""Registers the convolutional autoencoder and the objective of autoencoders."""

from trilemma.registry import AutoencoderSpec, ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.autoencoder(
        AutoencoderSpec(
            name="autoencoder-kl",
            target="trilemma_plugins.autoencoder.network:AutoencoderKL",
            summary="residual blocks, Gaussian codes of sides divided by 2, 4 or 8",
            reference="arXiv:2112.10752",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="autoencoding",
            target="trilemma_plugins.autoencoder.objective:Autoencoding",
            summary="error of decoded codes in pixels and features, their divergence, a discriminator of patches",
            reference="arXiv:1312.6114, arXiv:2112.10752",
        )
    )
