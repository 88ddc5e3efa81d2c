"""Registers Langevin diffusion in phase space, its training and its samplers."""

from trilemma.registry import (
    DenoiserSpec,
    KernelSpec,
    ObjectiveSpec,
    ProcessSpec,
    Registry,
    SamplerSpec,
    hookimpl,
)


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.process(
        ProcessSpec(
            name="cld",
            target="trilemma_plugins.cld.process:CLD",
            summary="critically damped Langevin diffusion: position and velocity, constant or linear beta",
            reference="arXiv:2112.07068",
        )
    )
    registry.sampler(
        SamplerSpec(
            name="sscs",
            target="trilemma_plugins.cld.sscs:SSCS",
            summary="symmetric splitting in phase space, its linear part exact; order 2 with score=midpoint",
            reference="arXiv:2112.07068",
            variants=("score=midpoint", "hold=x0", "grid=squares"),
        )
    )
    registry.sampler(
        SamplerSpec(
            name="gddim",
            target="trilemma_plugins.cld.gddim:GDDIM",
            summary="exponential Adams method in phase space, of order 1 to 3; one evaluation a step",
            reference="arXiv:2206.05564",
            variants=("points=1", "points=3"),
            default=True,
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="hsm",
            target="trilemma_plugins.cld.score_matching:HybridScoreMatching",
            summary="hybrid score matching in phase space: the velocity at t = 0 integrated out",
            reference="arXiv:2112.07068",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="dsm",
            target="trilemma_plugins.cld.score_matching:DenoisingScoreMatching",
            summary="denoising score matching in phase space: the velocity at t = 0 drawn",
            reference="arXiv:2112.07068",
        )
    )
    registry.denoiser(
        DenoiserSpec(
            name="cld",
            target="trilemma_plugins.cld.denoiser:MixedScoreDenoiser",
            summary="any network beside the score that the prior would have",
            reference="arXiv:2112.07068",
        )
    )
    registry.kernel(
        KernelSpec(
            name="sscs-step",
            target="trilemma_plugins.cld.kernels:Backend",
            summary="the step of symmetric splitting in the benchmark of the kernels",
        )
    )
