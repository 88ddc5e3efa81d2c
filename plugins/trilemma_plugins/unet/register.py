"""Registers the U-Net denoiser."""

from trilemma.registry import DenoiserSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.denoiser(
        DenoiserSpec(
            name="unet",
            target="trilemma_plugins.unet.unet:UNet",
            summary="U-Net with adaptive GroupNorm or additive time, attention, and every kind of condition",
            reference="arXiv:2006.11239, arXiv:2105.05233, arXiv:2112.10752",
        )
    )
