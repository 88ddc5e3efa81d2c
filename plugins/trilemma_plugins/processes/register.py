"""Registers the processes."""

from trilemma.registry import DenoiserSpec, ProcessSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.process(
        ProcessSpec(
            name="flow",
            target="trilemma_plugins.processes.flow:Flow",
            summary="straight line from data to noise, with an optional shift of time",
            reference="arXiv:2209.03003, arXiv:2210.02747, arXiv:2403.03206",
        )
    )
    registry.process(
        ProcessSpec(
            name="edm",
            target="trilemma_plugins.processes.exploding:EDM",
            summary="added noise of the level sigma = sigma_max t",
            reference="arXiv:2206.00364",
        )
    )
    registry.process(
        ProcessSpec(
            name="ve",
            target="trilemma_plugins.processes.exploding:VE",
            summary="added noise of a geometrically rising level",
            reference="arXiv:2011.13456",
        )
    )
    registry.process(
        ProcessSpec(
            name="sub-vp",
            target="trilemma_plugins.processes.sub_vp:SubVP",
            summary="linear beta with less noise than the variance-preserving process",
            reference="arXiv:2011.13456",
        )
    )
    registry.denoiser(
        DenoiserSpec(
            name="edm",
            target="trilemma_plugins.processes.preconditioned:Preconditioned",
            summary="a network between EDM's scalings, which keep its input and its task at unit variance",
            reference="arXiv:2206.00364",
        )
    )
