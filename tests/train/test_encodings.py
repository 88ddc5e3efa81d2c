"""Embeddings on disk: encoded once, whatever is damaged, and another encoder's are not taken."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.errors import TrilemmaError
from trilemma.interfaces.column import TextColumn
from trilemma.interfaces.condition import TextCondition
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.testing.word_encoder import WordEncoder
from trilemma.train.encodings import StoredEncoder, stored
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

TEXTS = ["a cat", "a very long dog", "", "a cat", "\udcff odd"]


def test_what_is_on_disk_is_not_encoded_again(tmp_path: Path) -> None:
    first, second = WordEncoder(), WordEncoder()
    expected = WordEncoder().encode(TEXTS)
    for encoder in (first, second):
        embeddings, mask = StoredEncoder(encoder, tmp_path).encode(TEXTS)
        assert torch.equal(embeddings, expected[0])
        assert torch.equal(mask, expected[1])
    assert first.calls == [["a cat", "a very long dog", "", "\udcff odd"]]
    assert second.calls == []
    StoredEncoder(second, tmp_path).encode(["a cat", "a bird"])
    assert second.calls == [["a bird"]]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "renamed"])
def test_a_damaged_file_is_encoded_again(tmp_path: Path, damage: str) -> None:
    StoredEncoder(WordEncoder(), tmp_path).encode(TEXTS)
    files = sorted(tmp_path.rglob("*.safetensors"))
    for path in files:
        blob = bytearray(path.read_bytes())
        if damage == "cut":
            blob = blob[:-7]
        elif damage == "flipped":
            blob[-2] ^= 1
        elif damage == "emptied":
            blob = bytearray()
        path.write_bytes(files[0].read_bytes() if damage == "renamed" else blob)
    again = WordEncoder()
    embeddings, _ = StoredEncoder(again, tmp_path).encode(TEXTS)
    assert torch.equal(embeddings, WordEncoder().encode(TEXTS)[0])
    assert again.calls
    last = WordEncoder()
    StoredEncoder(last, tmp_path).encode(TEXTS)
    assert not last.calls


def test_another_encoder_has_its_own(tmp_path: Path) -> None:
    StoredEncoder(WordEncoder(8), tmp_path).encode(TEXTS)
    other = WordEncoder(4)
    assert StoredEncoder(other, tmp_path).encode(TEXTS)[0].shape == (5, 4, 4)
    assert other.calls


def test_a_folder_that_cannot_be_written_is_told_and_harmless(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="embeddings are not kept"):
        embeddings, _ = StoredEncoder(WordEncoder(), tmp_path / "file").encode(TEXTS)
    assert torch.equal(embeddings, WordEncoder().encode(TEXTS)[0])


def test_a_condition_that_is_stored_prepares_alike(tmp_path: Path) -> None:
    plain = TextCondition("text", WordEncoder(), length=3, form="vector")
    kept = stored(plain, tmp_path)
    indices = torch.arange(4)
    for name, tensor in kept.prepare(TEXTS[:4]).take(indices).items():
        assert torch.equal(tensor, plain.prepare(TEXTS[:4]).take(indices)[name])
    assert list(tmp_path.rglob("*.safetensors"))
    assert kept.source() == plain.source()


class Captioned(InMemoryDataset):
    """Images of one level each, with a caption."""

    def __init__(self) -> None:
        images = (torch.arange(8) * 30).to(torch.uint8).view(8, 1, 1, 1).expand(8, 1, 8, 8).contiguous()
        texts = TextColumn([f"grey {level % 2}" for level in range(8)])
        super().__init__(images, torch.zeros(8, dtype=torch.int64), (), {"text": texts})


class Renamed(WordEncoder):
    """An encoder whose weights another version of its package may change."""

    version = 1

    @property
    def identity(self) -> str:
        return f"words of version {self.version}"


RECIPE = """
name = "told"
steps = 2
batch_size = 4
checkpoint_every = 2
log_every = 2
tensorboard = false
dataset = { spec = "captioned" }
process = { spec = "vp:schedule=cosine,T=50" }
objective = { spec = "simple:drop=0.1" }
samples = { every = 0 }

[denoiser]
options.channels = [8]
options.blocks = 1
options.groups = 4
options.conditions = [{ kind = "text", encoder = "words", form = "vector" }]
"""


def test_a_model_knows_the_encoder_that_it_was_trained_with(
    tmp_path: Path, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    register("encoder", "words", Renamed)
    register("dataset", "captioned", Captioned)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = read_recipe(tmp_path / "recipe.toml", [])
    model = trilemma.load(train(recipe, tmp_path / "run").model)
    assert model.card["provenance"]["encoders"] == {"text": "words of version 1"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trilemma.sample(model, 1, steps=1, cond={"text": "grey 1"})
    monkeypatch.setattr(Renamed, "version", 2)
    with pytest.warns(UserWarning, match="the model was trained with words of version 1"):
        trilemma.sample(model, 1, steps=1, cond={"text": "grey 1"})
    with pytest.raises(TrilemmaError, match="was written with other data"):
        train(recipe, tmp_path / "run")
