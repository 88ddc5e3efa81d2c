"""Registers the variance-preserving processes and the ancestral sampler."""

from trilemma.registry import ProcessSpec, Registry, SamplerSpec, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.process(
        ProcessSpec(
            name="vp",
            target="trilemma_plugins.ddpm.process:DiscreteVP",
            summary="variance-preserving process on a table of T steps, linear or cosine beta",
            reference="arXiv:2006.11239, arXiv:2102.09672",
        )
    )
    registry.process(
        ProcessSpec(
            name="vp-continuous",
            target="trilemma_plugins.ddpm.process:ContinuousVP",
            summary="variance-preserving process in continuous time, linear beta or cosine",
            reference="arXiv:2011.13456, arXiv:2202.00512",
        )
    )
    registry.process(
        ProcessSpec(
            name="vp-geometric",
            target="trilemma_plugins.ddpm.geometric:GeometricVP",
            summary="variance-preserving process in continuous time, its variance rising geometrically",
            reference="arXiv:2106.05931",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="ddpm",
            target="trilemma_plugins.ddpm.sampler:DDPM",
            summary="ancestral sampling, with the small or the large posterior variance",
            reference="arXiv:2006.11239",
            variants=("variance=large",),
        )
    )
