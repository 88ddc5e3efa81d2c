"""The recipe for digits from captions: a tiny network trains by it, and its samples follow the text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trilemma
from trilemma.interfaces.column import TextColumn
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.testing import WordEncoder
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train
from trilemma_plugins.mnist import captions

RECIPE = Path(captions.__file__).with_name("recipes") / "mnist-captions.toml"
COUNT = 16
SMALLER = [
    "steps=12",
    "batch_size=8",
    "checkpoint_every=12",
    "log_every=6",
    "ema=0.5",
    "optimizer.lr=0.01",
    "denoiser.options.channels=[8, 16]",
    "denoiser.options.head=8",
    "optimizer.warmup=1",
    "samples.every=12",
    "samples.n=2",
    "samples.steps=2",
    "weights_dtype=float32",
]


class Bars(InMemoryDataset):
    """Black images "on the left" and white ones "to the right of it"."""

    def __init__(self, split: str = "train") -> None:
        white = torch.arange(COUNT) % 2
        images = (255 * white).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).contiguous()
        texts = [("on the left", "to the right of it")[side] for side in white.tolist()]
        super().__init__(images, white, ("black", "white"), {"text": TextColumn(texts)})


@pytest.mark.parametrize("form", ["sequence", "vector"])
def test_a_tiny_network_trains_by_the_recipe_and_samples_texts(form, register, tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    register("encoder", "words", WordEncoder)
    register("dataset", "bars", Bars)
    own = tmp_path / "recipe.toml"
    text = RECIPE.read_text().replace("mnist-captions:", "bars:").replace('"minilm"', '"words"')
    own.write_text(text)
    condition = f"[{{'kind': 'text', 'encoder': 'words', 'form': '{form}', 'length': 16}}]"
    blocks = "[7]" if form == "sequence" else "[]"
    wishes = [f"denoiser.options.conditions={condition}", f"denoiser.options.transformer={blocks}"]
    run = train(read_recipe(own, [*SMALLER, *wishes]), tmp_path / "run")

    network = trilemma.load(run.model)
    assert list(network.conditions) == ["text"]
    options = {"steps": 3, "seed": 1, "guidance": "cfg:scale=3"}
    asked = {"text": ["on the left", "to the right of it"]}
    both = trilemma.sample(run.model, 2, cond=asked, **options).samples
    turned = trilemma.sample(run.model, 2, cond={"text": asked["text"][::-1]}, **options).samples
    assert both.isfinite().all()
    assert (both - turned).abs().amax((1, 2, 3)).min() > 1e-6
