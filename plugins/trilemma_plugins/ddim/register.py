"""Registers the DDIM sampler."""

from trilemma.registry import KernelSpec, Registry, SamplerSpec, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.sampler(
        SamplerSpec(
            name="ddim",
            target="trilemma_plugins.ddim.sampler:DDIM",
            summary="implicit sampling, deterministic at eta=0; on five grids of times",
            reference="arXiv:2010.02502",
            variants=("eta=1",),
            default=True,
        )
    )
    registry.kernel(
        KernelSpec(
            name="ddim-step",
            target="trilemma_plugins.ddim.kernels:Backend",
            summary="the step of DDIM in the benchmark of the kernels",
        )
    )
