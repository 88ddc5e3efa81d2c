"""Registers recovery likelihood: energies of images, their objective and their sampler."""

from trilemma.registry import DenoiserSpec, ObjectiveSpec, Registry, SamplerSpec, hookimpl

PAPER = "arXiv:2012.08125"


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.denoiser(
        DenoiserSpec(
            name="energy-of",
            target="trilemma_plugins.recovery.quadratic:QuadraticEnergy",
            summary="gradient of an energy, the square of what another network leaves of the state",
        )
    )
    registry.denoiser(
        DenoiserSpec(
            name="energy-resnet",
            target="trilemma_plugins.recovery.residual:EnergyResNet",
            summary="gradient of an energy of images, a residual network with spectral norms",
            reference=PAPER,
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="recovery",
            target="trilemma_plugins.recovery.objective:Recovery",
            summary="energies from short Langevin chains between neighbouring noise levels",
            reference=PAPER,
        )
    )
    registry.sampler(
        SamplerSpec(
            name="recovery-langevin",
            target="trilemma_plugins.recovery.sampler:RecoveryLangevin",
            summary="chains of Langevin steps between a few noise levels, for energy models",
            reference=PAPER,
        )
    )
