"""MNIST with captions: the measures on strokes that are known, and captions that say what is measured."""

from __future__ import annotations

import math
import re

import pytest
import torch

import trilemma
from trilemma.interfaces.column import ClassColumn
from trilemma.testing import run_checks
from trilemma_plugins.mnist.phrases import LEANING, NUMBERS, SEEN, UNSEEN, caption
from trilemma_plugins.mnist.strokes import BOLDNESS, SLANT, angle, boldness, measures, slant, thickness


def stroke(width: float, lean: float) -> torch.Tensor:
    """A stroke of 18 rows [1, 1, 28, 28], leaning by degrees, its edges antialiased."""
    fine = 8
    grid = (torch.arange(28 * fine) + 0.5) / fine - 14
    middle = -grid[:, None] * math.tan(math.radians(lean))
    across = (grid[None, :] - middle).abs() * math.cos(math.radians(lean))
    inside = (across <= width / 2) & (grid[:, None].abs() <= 9)
    return torch.nn.functional.avg_pool2d(inside.float()[None, None], fine)


@pytest.mark.parametrize("width", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("lean", [-25.0, 0.0, 15.0])
def test_a_stroke_of_known_width_and_lean(width, lean):
    image = stroke(width, lean)
    # A bar of 18 by w has the outline 2 (18 + w), and the shear adds to its length.
    length = 18 / math.cos(math.radians(lean))
    assert float(thickness(image)) == pytest.approx(width * length / (length + width), rel=0.12)
    assert float(angle(image)) == pytest.approx(lean, abs=1)
    assert float(angle(image.flip(-1))) == pytest.approx(-lean, abs=1)


def test_no_ink_has_no_strokes():
    nothing = torch.zeros(2, 1, 28, 28)
    assert thickness(nothing).tolist() == angle(nothing).tolist() == [0.0, 0.0]


def test_grades_have_the_stated_bounds():
    assert boldness(torch.tensor([0.0, 2.12, 2.13, 2.61, 2.62, 9.0])).tolist() == [0, 0, 1, 1, 2, 2]
    assert slant(torch.tensor([-40.0, -0.7, -0.6, 12.5, 12.6, 50.0])).tolist() == [0, 0, 1, 1, 2, 2]


def test_every_caption_names_its_attributes_in_english():
    texts = [
        caption(phrasing, number, weight, lean)
        for phrasing in (*SEEN, *UNSEEN)
        for number in range(10)
        for weight in BOLDNESS
        for lean in range(3)
    ]
    assert len(set(texts)) == len(texts) == 90 * (len(SEEN) + len(UNSEEN))
    assert not [text for text in texts if re.search(r"\ba (eight|upright)|\ban [^eu]|[{}]", text)]
    assert caption(SEEN[0], 7, "bold", 0) == "a bold seven, leaning left"


def read_back(text: str) -> tuple[int, int, int]:
    """The digit, boldness and slant that a caption names."""
    (number,) = (i for i, word in enumerate(NUMBERS) if re.search(rf"\b{word}\b", text))
    (weight,) = (i for i, word in enumerate(BOLDNESS) if re.search(rf"\b{word}\b", text))
    (lean,) = (i for i, words in enumerate(LEANING) if words in text)
    return number, weight, lean


@pytest.fixture(scope="module")
def splits(data_root):
    root = str(data_root / "mnist")
    return {
        split: trilemma.dataset(f"mnist-captions:split={split}", root=root) for split in ("train", "test")
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_say_what_is_measured(splits, split):
    data = splits[split]
    rows = torch.arange(0, len(data), 97)
    x0, values = data.batch(rows)
    ink = (x0 + 1) / 2
    measured = torch.stack([data.labels[rows], boldness(thickness(ink)), slant(angle(ink))], 1)
    assert [read_back(text) for text in values["text"]] == [tuple(row) for row in measured.tolist()]
    for name, place in (("class", 0), ("boldness", 1), ("slant", 2)):
        assert torch.equal(values[name], measured[:, place])


def test_grades_are_thirds_of_the_training_images(data_root):
    thicknesses, angles = measures(trilemma.dataset("mnist", root=str(data_root / "mnist")).images)
    for grades in (boldness(thicknesses), slant(angles)):
        assert (grades.bincount() / len(grades)).tolist() == pytest.approx([1 / 3] * 3, abs=0.005)


def test_no_caption_of_the_test_is_trained_on(splits):
    texts = {split: set(data.columns["text"].at(torch.arange(len(data)))) for split, data in splits.items()}
    assert not texts["train"] & texts["test"]
    combinations = {split: set(map(read_back, found)) for split, found in texts.items()}
    assert combinations["train"] < combinations["test"]
    missing = combinations["test"] - combinations["train"]
    assert sorted(number for number, *_ in missing) == list(range(10))
    assert (7, BOLDNESS.index("bold"), SLANT.index("left")) in missing
    assert not splits["train"].unseen.any()
    unseen = splits["test"].unseen.nonzero().flatten()
    assert set(map(read_back, splits["test"].columns["text"].at(unseen))) == missing


def test_it_passes_the_checks(splits, monkeypatch, data_root):
    monkeypatch.setenv("TRILEMMA_DATA", str(data_root))
    assert [record for record in run_checks("dataset", "mnist-captions:split=test") if record.failed] == []
    assert isinstance(splits["train"].columns["slant"], ClassColumn)
