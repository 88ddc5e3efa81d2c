"""Registers Langevin diffusion in phase space and its samplers."""

from trilemma.plugins import ProcessSpec, Registry, hookimpl


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
