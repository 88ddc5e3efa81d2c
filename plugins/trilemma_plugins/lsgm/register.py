"""Registers score-based generative modelling in latent space."""

from trilemma.registry import AutoencoderSpec, DenoiserSpec, ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.denoiser(
        DenoiserSpec(
            name="lsgm",
            target="trilemma_plugins.lsgm.denoiser:MixedScoreDenoiser",
            summary="any network, mixed with the exact answer for standard normal codes",
            reference="arXiv:2106.05931",
        )
    )
    registry.autoencoder(
        AutoencoderSpec(
            name="grey-levels",
            target="trilemma_plugins.lsgm.grey_levels:GreyLevels",
            summary="any autoencoder, read as probabilities of the grey levels of pixels",
            reference="arXiv:1701.05517, arXiv:2007.03898",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="lsgm",
            target="trilemma_plugins.lsgm.objective:LatentScoreModel",
            summary="the bound of an autoencoder and the score prior of its codes, trained together",
            reference="arXiv:2106.05931",
        )
    )
