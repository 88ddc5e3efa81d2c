"""Registers variational diffusion models: their process, bound and network."""

from trilemma.registry import DenoiserSpec, MetricSpec, ObjectiveSpec, ProcessSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.process(
        ProcessSpec(
            name="vdm",
            target="trilemma_plugins.vdm.process:VDM",
            summary="variance-preserving process of a log-SNR that is linear, cosine or learned",
            reference="arXiv:2107.00630",
        )
    )
    registry.objective(
        ObjectiveSpec(
            name="vlb",
            target="trilemma_plugins.vdm.objective:VariationalBound",
            summary="variational bound in bits per dimension, of T steps or continuous time, with a learned schedule",
            reference="arXiv:2107.00630",
        )
    )
    registry.denoiser(
        DenoiserSpec(
            name="vdm",
            target="trilemma_plugins.vdm.denoiser:FourierDenoiser",
            summary="any network with Fourier features of its input and gamma as its clock",
            reference="arXiv:2107.00630",
        )
    )
    registry.metric(
        MetricSpec(
            name="bpd",
            target="trilemma_plugins.vdm.metric:BitsPerDimension",
            summary="bits per dimension of images on 256 levels, by the variational bound or the probability flow",
            reference="arXiv:2107.00630, arXiv:2011.13456",
        )
    )
