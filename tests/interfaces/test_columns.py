"""Columns: the values of conditions by name, through batches, parts of a data set and fingerprints."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.evaluate.splits import Part
from trilemma.interfaces.column import ClassColumn, ImageColumn, ScalarColumn, TextColumn
from trilemma.interfaces.dataset import InMemoryDataset, Subset
from trilemma.interfaces.held_out import held_out

COUNT = 6
PIXELS = torch.arange(COUNT * 4, dtype=torch.uint8).view(COUNT, 1, 2, 2)
TEXTS = ["one", None, "three", "four", "", "six"]
LEVELS = torch.tensor([0.5, math.nan, 2.0, -1.0, 0.0, 1.0])


def columns(**changed):
    made = {
        "level": ScalarColumn(LEVELS),
        "text": TextColumn(TEXTS),
        "style": ClassColumn(torch.tensor([0, 1, -1, 1, 0, 0]), ("thin", "bold")),
        "small": ImageColumn(lambda rows: PIXELS[rows, :, :1, :1], COUNT, (1, 1, 1), "small"),
    }
    return made | changed


def data(**changed) -> InMemoryDataset:
    return InMemoryDataset(PIXELS, torch.arange(COUNT) % 2, ("even", "odd"), columns(**changed))


def plain(values):
    return {
        name: value.flatten().nan_to_num(9).tolist() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }


def test_a_batch_gives_values_by_name():
    x0, values = data().batch(torch.tensor([3, 1, 1]), torch.float64)
    assert x0.dtype == torch.float64
    assert plain(values) == {
        "class": [1, 1, 1],
        "level": [-1.0, 9.0, 9.0],
        "text": ["four", None, None],
        "style": [1, 1, 1],
        "small": [12, 4, 4],
    }
    assert values["small"].shape == (3, 1, 1, 1)


def test_missing_values_and_ranges_are_known():
    found = data().columns
    assert {name: column.missing.nonzero().flatten().tolist() for name, column in found.items()} == {
        "class": [],
        "level": [1],
        "text": [1],
        "style": [2],
        "small": [],
    }
    assert (found["level"].low, found["level"].high) == (-1.0, 2.0)
    assert [column.kind for column in found.values()] == ["class", "scalar", "text", "class", "image"]


@pytest.mark.parametrize("part", [Subset, Part])
def test_a_part_has_the_values_of_its_examples(part):
    whole, chosen = data(), torch.tensor([5, 2, 3])
    rows = torch.tensor([2, 0])
    found = plain(part(whole, chosen).batch(rows)[1])
    assert found == plain(whole.batch(chosen[rows])[1])
    # A part keeps the range of the whole, so that one number means the same in both.
    assert part(whole, chosen).columns["level"].high == 2.0


def test_the_held_out_part_has_its_values():
    whole = data()
    rest, out = held_out(whole, 0.3, 0)
    texts = [part.batch(torch.arange(len(part)))[1]["text"] for part in (rest, out)]
    assert sorted(map(str, texts[0] + texts[1])) == sorted(map(str, TEXTS))
    for part, of in zip((rest, out), texts, strict=True):
        assert of == [TEXTS[int(image.flatten()[0]) // 4] for image in part.images]


@pytest.mark.parametrize(
    "changed",
    [
        {"level": ScalarColumn(LEVELS.nan_to_num(0.1))},
        {"level": ScalarColumn(LEVELS, -1, 3)},
        {"text": TextColumn(["one", "", *TEXTS[2:]])},
        {"text": TextColumn(["onet", None, "hree", *TEXTS[3:]])},
        {"style": ClassColumn(torch.tensor([0, 1, -1, 1, 0, 1]), ("thin", "bold"))},
        {"style": ClassColumn(torch.tensor([0, 1, -1, 1, 0, 0]), ("thin", "fat"))},
        {"small": ImageColumn(lambda rows: PIXELS[rows, :, :1, :1], COUNT, (1, 1, 1), "other")},
        {"more": TextColumn(TEXTS)},
    ],
)
def test_the_fingerprint_knows_every_column(changed):
    assert data().fingerprint() == data().fingerprint()
    assert data(**changed).fingerprint() != data().fingerprint()


def test_parts_are_told_apart_by_their_columns():
    first, second = (Subset(data(), torch.tensor(rows)) for rows in ([0, 2], [0, 4]))
    for name in ("level", "text", "style", "small"):
        assert first.columns[name].digest() != second.columns[name].digest()


def test_the_labels_are_the_class():
    with pytest.raises(UsageError, match="that of the labels"):
        InMemoryDataset(PIXELS, torch.zeros(COUNT, dtype=torch.int64), (), {"class": TextColumn(TEXTS)})
    bare = InMemoryDataset(PIXELS, torch.zeros(COUNT, dtype=torch.int64), ())
    assert dict(bare.columns) == {}


def test_a_number_outside_its_range_is_refused():
    with pytest.raises(UsageError, match="leave the range"):
        ScalarColumn(LEVELS, 0, 1)
