"""Registers the objective of denoising diffusion GANs."""

from trilemma.registry import ObjectiveSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.objective(
        ObjectiveSpec(
            name="ddgan",
            target="trilemma_plugins.ddgan.objective:DenoisingGAN",
            summary="a generator against a discriminator of denoising steps, with lazy R1",
            reference="arXiv:2112.07804",
        )
    )
