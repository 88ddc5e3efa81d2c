"""Emoji from words: four models, and the command that builds the pictures they were trained on."""

from trilemma.registry import CommandSpec, ModelSpec, hookimpl

MODELS = {
    "emoji": ("models/emoji", "emoji from words in two styles, 64×64"),
    "emoji-codes": ("models/emoji/autoencoder", "codes of emoji, 4×16×16"),
    "emoji-features": ("models/emoji-features", "features of emoji, for the Fréchet distance"),
    "emoji-words": ("models/emoji-words", "how well a caption fits an emoji"),
}


@hookimpl
def trilemma_register(registry):
    for name, (folder, summary) in MODELS.items():
        registry.model(ModelSpec(name, f"trilemma_emoji:{folder}", summary))
    registry.command(
        CommandSpec(
            "emoji-set", "trilemma_emoji.emoji_set:command", "Build the set of emoji from npm packages."
        )
    )
