"""Embeddings on disk: encoded once, whatever is damaged, and another encoder's are not taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trilemma.interfaces.condition import TextCondition
from trilemma.testing.word_encoder import WordEncoder
from trilemma.train.encodings import StoredEncoder, stored

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
