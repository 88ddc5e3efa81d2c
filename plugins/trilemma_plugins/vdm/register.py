"""Registers the process of variational diffusion models."""

from trilemma.plugins import ProcessSpec, Registry, hookimpl


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
