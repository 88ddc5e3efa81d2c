"""Registers the encoder all-MiniLM-L6-v2."""

from trilemma.registry import EncoderSpec, Registry, hookimpl


@hookimpl
def trilemma_register(registry: Registry) -> None:
    registry.encoder(
        EncoderSpec(
            name="minilm",
            target="trilemma_plugins.minilm.encoder:MiniLM",
            summary="all-MiniLM-L6-v2: texts as embeddings of 384 numbers, without network",
            reference="arXiv:2002.10957",
            extra="text",
            width=384,
        )
    )
