"""Conditions in training: every kind from its column, prepared once, a missing value being the null."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.interfaces.column import ClassColumn, ImageColumn, ScalarColumn, TextColumn
from trilemma.interfaces.condition import ClassCondition, ImageCondition, ScalarCondition, TextCondition
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.encoder import Encoder
from trilemma.interfaces.held_out import held_out
from trilemma.lookup import process
from trilemma.train.conditions import ConditionSource

COUNT = 5
PIXELS = torch.arange(COUNT * 4, dtype=torch.uint8).view(COUNT, 1, 2, 2)
TEXTS = ["a", "bb", None, "a", "bb"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))


class Letters(Encoder):
    """Has as many tokens as letters, each the number of the letter."""

    width = 1

    def __init__(self) -> None:
        self.encoded: list[str] = []

    @property
    def identity(self) -> str:
        return "letters"

    def encode(self, texts):
        self.encoded += texts
        longest = max(map(len, texts))
        numbers = [[ord(letter) for letter in text] + [0] * (longest - len(text)) for text in texts]
        embeddings = torch.tensor(numbers, dtype=torch.float32)[..., None]
        return embeddings, embeddings[..., 0] > 0


class Told(Denoiser):
    """Is told conditions, and answers nothing."""

    def __init__(self, *conditions) -> None:
        super().__init__(process("vp:T=50"), "v", (1, 2, 2), conditions)

    def forward(self, z, t, **cond):
        return z


def data(labels=(0, 1, 0, 1, 1), **columns) -> InMemoryDataset:
    return InMemoryDataset(PIXELS, torch.tensor(labels), ("even", "odd"), columns)


def everything(encoder):
    return (
        ClassCondition("class", 2, null=2),
        ClassCondition("style", 3, null=3),
        ScalarCondition("level", 0, 2, null=True),
        TextCondition("text", encoder, length=2),
        ImageCondition("image", (1, 2, 2), null=False, resize="exact"),
    )


def columns(**changed):
    made = {
        "style": ClassColumn(torch.tensor([2, -1, 0, 1, -1]), ("x", "y", "z")),
        "level": ScalarColumn(torch.tensor([0.5, 2.0, math.nan, 0.5, math.nan])),
        "text": TextColumn(TEXTS),
        "image": ImageColumn(lambda rows: PIXELS[rows], COUNT, (1, 2, 2), "pixels"),
    }
    return made | changed


def test_every_kind_is_taken_by_index():
    encoder = Letters()
    source = ConditionSource(Told(*everything(encoder)), data(**columns()), CPU)
    found = source.take(torch.tensor([1, 2, 0]))
    assert found["class"].tolist() == [1, 0, 0]
    assert found["style"].tolist() == [3, 0, 2]
    assert found["level"].tolist() == [2.0, 0.0, 0.5]
    assert found["level_given"].tolist() == [True, False, True]
    assert found["text"][..., 0].tolist() == [[98, 98], [0, 0], [97, 0]]
    assert found["text_mask"].tolist() == [[True, True], [False, False], [True, False]]
    expected = PIXELS[[1, 2, 0]] / 127.5 - 1
    torch.testing.assert_close(found["image"], expected)
    assert sorted(found) == ["class", "image", "level", "level_given", "style", "text", "text_mask"]


def test_a_text_is_encoded_once():
    encoder = Letters()
    source = ConditionSource(Told(TextCondition("text", encoder)), data(**columns()), CPU)
    for step in range(4):
        source.take(torch.tensor([step]))
    assert sorted(encoder.encoded) == ["a", "bb"]
    # Another run finds the embeddings on disk.
    again = Letters()
    found = ConditionSource(Told(TextCondition("text", again)), data(**columns()), CPU).take(
        torch.arange(COUNT)
    )
    assert again.encoded == []
    assert torch.equal(found["text"], source.take(torch.arange(COUNT))["text"])


def test_a_held_out_part_gives_its_own_values():
    whole, network = data(**columns()), Told(*everything(Letters()))
    for part in held_out(whole, 0.4, 1):
        source = ConditionSource(network, part, CPU)
        rows = torch.arange(len(part))
        found = source.take(rows)
        every = ConditionSource(network, whole, CPU).take(part.images[:, 0, 0, 0].long() // 4)
        assert found.keys() == every.keys()
        assert all(torch.equal(found[name], every[name]) for name in found)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (ClassCondition("class", 10), "10 classes and the data set 2; set denoiser.options.classes=2"),
        (ClassCondition("style", 2, null=2), "2 classes of 'style' and the data set 3; set size = 3"),
        (ClassCondition("style", 3), "missing and this model has no null"),
        (ClassCondition("text", 3), "'text' as class, the data set gives it as text"),
        (ScalarCondition("level", 0, 1, null=True), "does not fit the network: .*2"),
        (ScalarCondition("level", 0, 2), "missing and this model has no null"),
        (ScalarCondition("heat", 0, 2), "it gives class, style, level, text, image: choose another"),
    ],
)
def test_what_does_not_fit_is_refused(condition, message, one_line):
    with pytest.raises(UsageError, match=message) as caught:
        ConditionSource(Told(condition), data(**columns()), CPU)
    assert len(one_line(caught.value)) < 300
