"""The recipes of autoencoders and of the denoisers of their codes."""

from __future__ import annotations

from pathlib import Path

import trilemma_plugins
from trilemma import lookup
from trilemma.train.recipe import read_recipe
from trilemma.train.stages import read_stages

PLUGINS = Path(trilemma_plugins.__path__[0])


def bytes_of(network):
    """The bytes of the weights in float16."""
    return 2 * sum(tensor.numel() for tensor in network.state_dict().values())


def test_the_latent_model_of_digits_and_its_autoencoder_take_four_megabytes(tmp_path):
    first, second = read_stages(PLUGINS / "autoencoder" / "recipes" / "mnist.toml")
    coding = first.recipe({})
    drawing = second.recipe({"mnist-codes": tmp_path})
    assert drawing.latent.autoencoder == str(tmp_path)
    assert drawing.start is None
    coder, _ = lookup.build("autoencoder", coding.network.spec, shape=(1, 28, 28), **coding.network.options)
    shape = coder.code_shape((1, 28, 28))
    assert shape == (4, 7, 7)
    process = lookup.process(drawing.process.spec)
    denoiser = lookup.denoiser(drawing.network.spec, process=process, shape=shape, **drawing.network.options)
    assert bytes_of(coder) + bytes_of(denoiser) < 4_000_000
    assert list(denoiser.conditions) == ["class"]


def test_the_codes_of_emoji_have_a_quarter_of_the_sides():
    recipe = read_recipe(PLUGINS / "autoencoder" / "recipes" / "emoji-codes.toml")
    coder, _ = lookup.build("autoencoder", recipe.network.spec, shape=(3, 64, 64), **recipe.network.options)
    assert coder.code_shape((3, 64, 64)) == (4, 16, 16)
    assert lookup.objective(recipe.objective.spec).error == "absolute"
