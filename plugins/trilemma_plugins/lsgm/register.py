"""Registers score-based generative modelling in latent space."""

from trilemma.registry import Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    pass
