"""Registers recovery likelihood."""

from trilemma.registry import Registry, SamplerSpec, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.sampler(
        SamplerSpec(
            name="recovery-langevin",
            target="trilemma_plugins.recovery.sampler:RecoveryLangevin",
            summary="chains of Langevin steps between a few noise levels, for energy models",
            reference="arXiv:2012.08125",
        )
    )
