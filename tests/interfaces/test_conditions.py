"""Every kind of condition: how values are given, the null, and how they are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.condition import (
    ClassCondition,
    Condition,
    ImageCondition,
    ScalarCondition,
    TextCondition,
    conditions_from,
)
from trilemma.testing.word_encoder import WordEncoder

LEVEL = ScalarCondition("level", -1, 2, null=True)
IMAGE = ImageCondition("low", (1, 4, 4), null=True)
TEXT = TextCondition("text", WordEncoder(), length=4)
VECTOR = TextCondition("text", WordEncoder(), form="vector")
KINDS: dict[str, tuple[Condition, list[Any]]] = {
    "class": (ClassCondition("class", 3, null=3), [0, 2, 1]),
    "scalar": (LEVEL, [0.5, -1, 2.0]),
    "image": (IMAGE, list(torch.linspace(-1, 1, 48).view(3, 1, 4, 4))),
    "sequence": (TEXT, ["a cat", "a very big dog", ""]),
    "vector": (VECTOR, ["a cat", "a very big dog", ""]),
}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("condition", "values"), KINDS.values(), ids=KINDS)
def test_sample_i_takes_value_i_modulo_their_number(condition: Condition, values: list[Any]) -> None:
    taken = condition.prepare(values).take(torch.tensor([4, 0, 7]))
    assert tuple(taken) == condition.keywords
    for row, value in enumerate((values[1], values[0], values[1])):
        alone = condition.prepare(value).take(torch.tensor([100 + row]))
        assert same({name: entry[row : row + 1] for name, entry in taken.items()}, alone)


@pytest.mark.parametrize(("condition", "values"), KINDS.values(), ids=KINDS)
def test_the_null_is_the_same_missing_in_a_list_and_dropped_in_training(
    condition: Condition, values: list[Any]
) -> None:
    indices = torch.arange(4)
    absent = condition.absent(indices)
    assert same(absent, condition.prepare(None).take(indices))
    mixed = condition.prepare([values[0], None]).take(indices)
    given = condition.prepare(values[0]).take(indices)
    dropped = condition.drop({**given, "other": torch.zeros(4)}, torch.tensor([False, True, False, True]))
    assert same(mixed, dropped)
    assert same({name: entry[1::2] for name, entry in mixed.items()}, condition.absent(indices[:2]))
    assert not same(absent, given)


@pytest.mark.parametrize(("condition", "values"), KINDS.values(), ids=KINDS)
def test_without_a_null_nothing_is_missing_or_dropped(condition: Condition, values: list[Any]) -> None:
    import dataclasses

    null: Any = None if isinstance(condition, ClassCondition) else False
    hard = dataclasses.replace(condition, null=null)  # type: ignore[call-arg]
    given = hard.prepare(values).take(torch.arange(3))
    for name in hard.keywords:
        assert torch.equal(given[name], condition.prepare(values).take(torch.arange(3))[name])
    for missing in (None, [values[0], None]):
        with pytest.raises(
            UsageError, match=f"condition {condition.name!r} is missing and this model has no null"
        ):
            hard.prepare(missing)
    with pytest.raises(UsageError, match="has no null to drop"):
        hard.drop(given, torch.ones(3, dtype=torch.bool))
    with pytest.raises(UsageError, match="empty list"):
        hard.prepare([])


@pytest.mark.parametrize(("condition", "values"), KINDS.values(), ids=KINDS)
def test_what_is_drawn_for_tests_has_the_form_of_values(condition: Condition, values: list[Any]) -> None:
    drawn = condition.drawn(3, torch.Generator().manual_seed(0)).take(torch.arange(3))
    for name, entry in condition.prepare(values).take(torch.arange(3)).items():
        assert drawn[name].shape == entry.shape
        assert drawn[name].dtype == entry.dtype
    assert not torch.equal(drawn[condition.name][0], drawn[condition.name][1])


def test_numbers_come_from_lists_arrays_and_tensors() -> None:
    for given in ([0.5, 1], np.array([0.5, 1.0]), torch.tensor([0.5, 1.0], dtype=torch.float64)):
        taken = LEVEL.prepare(given).take(torch.arange(2))
        assert taken["level"].tolist() == [0.5, 1.0]
        assert taken["level"].dtype == torch.float32
        assert taken["level_given"].tolist() == [True, True]


@pytest.mark.parametrize("value", [2.5, -1.1, math.nan, math.inf, "high", True, [0.1, "a"], [[0.1]]])
def test_what_is_no_number_in_range_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"level=.*give a number from -1 to 2") as caught:
        LEVEL.prepare(value)
    assert "\n" not in str(caught.value)


def test_images_of_any_origin_mean_the_same(tmp_path: Path) -> None:
    pixels = (torch.arange(16).reshape(1, 4, 4) * 17).to(torch.uint8)
    path = tmp_path / "a photo, with blanks.png"
    Image.fromarray(pixels[0].numpy()).save(path)
    expected = pixels.float() / 127.5 - 1
    for given in (
        pixels,
        pixels.numpy(),
        expected,
        expected.double().numpy(),
        path,
        str(path),
        Image.open(path),
    ):
        assert torch.allclose(IMAGE.prepare(given).take(torch.arange(1))["low"][0], expected, atol=1e-6)
    stacked = IMAGE.prepare(torch.stack([pixels, 255 - pixels])).take(torch.arange(3))["low"]
    assert torch.allclose(stacked, torch.stack([expected, -expected, expected]), atol=1e-6)
    assert len(IMAGE.prepare([path, None, pixels])) == 3


def test_an_image_of_another_size_is_cut_at_its_centre_and_resized_by_the_rule() -> None:
    wide = torch.zeros(1, 8, 12)
    wide[:, :, 2:10] = torch.linspace(-1, 1, 8)
    for rule in ("nearest", "bilinear", "bilinear-antialias", "bicubic", "bicubic-antialias", "area"):
        small = ImageCondition("low", (1, 4, 4), resize=rule).prepare(wide).tensors["low"][0]
        assert torch.allclose(small[0], small[0, 0].expand(4, 4), atol=1e-6)
        assert bool((small[0, 0].diff() > 0.3).all())
        assert small.abs().max() <= 1
    flat = torch.full((1, 9, 5), 0.3)
    assert torch.allclose(IMAGE.prepare(flat).tensors["low"], torch.tensor(0.3))
    with pytest.raises(UsageError, match=r"low= is an image \(1, 8, 12\)"):
        ImageCondition("low", (1, 4, 4), resize="exact").prepare(wide)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.zeros(3, 4, 4), r"tensor of shape \(3, 4, 4\)"),
        (torch.zeros(4, 4), r"tensor of shape \(4, 4\)"),
        (torch.full((1, 4, 4), 255.0), r"no image; .* or bytes as uint8"),
        (torch.full((1, 4, 4), math.nan), "no image"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), "int64 levels"),
        ("nowhere.png", "cannot read nowhere.png: No such file"),
        (7, r"tensor of shape \(\)"),
        ({"a": 1}, "is no image"),
    ],
)
def test_what_is_no_image_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        IMAGE.prepare(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_text_is_its_tokens_and_places_that_say_nothing() -> None:
    encoder = WordEncoder()
    condition = TextCondition("text", encoder, length=4)
    taken = condition.prepare(["a cat", "a cat", "dog", None]).take(torch.arange(4))
    assert encoder.calls == [["a cat", "dog"]]
    assert taken["text_mask"].tolist() == [[True, True, False, False]] * 2 + [
        [True, False, False, False],
        [False] * 4,
    ]
    assert torch.equal(taken["text"][0, 1], encoder.embedding("cat"))
    assert not bool(taken["text"][~taken["text_mask"]].any())


def test_a_text_that_is_too_long_is_cut_and_said() -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts have more tokens than the 4"):
        taken = TEXT.prepare(["one two three four five", "six"]).take(torch.arange(2))
    assert torch.equal(taken["text"][0, 3], WordEncoder().embedding("four"))
    assert VECTOR.prepare("one two three four five six").tensors["text"].shape == (1, 8)


@pytest.mark.parametrize("value", [7, ["a", 7], [["a"]], b"a", "\udcff"])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="is no text; give a text"):
        TEXT.prepare(value)


def test_values_of_the_command_line() -> None:
    assert TEXT.parse("a cat, 7 lives") == "a cat, 7 lives"
    assert TEXT.parse("7") == "7"
    assert TEXT.parse('["a cat, black", dog, None]') == ["a cat, black", "dog", None]
    assert IMAGE.parse("my photo.png") == "my photo.png"
    assert IMAGE.parse("[a.png, 'b c.png']") == ["a.png", "b c.png"]
    assert LEVEL.parse("0.3") == 0.3
    assert LEVEL.parse("[0.3, None]") == [0.3, None]


TABLES = [
    {"kind": "class", "size": 10, "null": True},
    {"kind": "scalar", "name": "level", "low": 0, "high": 1, "null": True},
    {"kind": "image", "name": "low", "shape": [1, 14, 14], "resize": "bilinear"},
    {"kind": "text", "encoder": WordEncoder(), "form": "sequence", "length": 5},
]


def test_tables_describe_conditions() -> None:
    label, level, low, text = conditions_from(TABLES)
    assert label == ClassCondition("class", 10, null=10)
    assert level == ScalarCondition("level", 0, 1, null=True)
    assert low == ImageCondition("low", (1, 14, 14), resize="bilinear")
    assert isinstance(text, TextCondition)
    assert (text.name, text.width, text.length, text.has_null) == ("text", 8, 5, True)
    assert conditions_from([{"kind": "class", "names": ["cat", "dog"]}, level])[0].names == ("cat", "dog")


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"kind": "class"}, "no list of tables"),
        ([7], "7 is no table"),
        ([{"name": "a"}], "kind=None is unknown; choose from class, scalar, image, text"),
        ([{"kind": "classes"}], "kind='classes' is unknown"),
        ([{"kind": "class"}], "needs the key 'size'"),
        ([{"kind": "class", "size": "ten"}], "size='ten' does not fit; give a whole number"),
        ([{"kind": "scalar", "lowest": 0}], "has no key 'lowest'; did you mean 'low'"),
        ([{"kind": "scalar", "low": 2, "high": 1}], "low=2 and high=1 bound no range"),
        ([{"kind": "scalar", "null": 1}], "null=1 does not fit"),
        ([{"kind": "image"}], "needs the key 'shape'"),
        ([{"kind": "image", "shape": [14, 14]}], "is no shape"),
        ([{"kind": "image", "shape": [1, 4, 4], "resize": "lanczos"}], "unknown resize='lanczos'"),
        ([{"kind": "text", "encoder": "minlim"}], "minilm"),
        ([{"kind": "text", "encoder": WordEncoder(), "form": "words"}], "unknown form='words'"),
        ([{"kind": "text", "encoder": WordEncoder(), "length": 0}], "length=0"),
        ([{"kind": "scalar", "name": "a b"}], "name='a b' is no name"),
        ([{"kind": "scalar", "name": "t"}], "name 't' of 't' is taken"),
        ([TABLES[1], {"kind": "scalar", "name": "level_given"}], "'level_given' is taken"),
    ],
)
def test_bad_tables_name_their_key(tables: Any, reason: str) -> None:
    with pytest.raises(Exception, match=reason) as caught:
        conditions_from(tables)
    assert "\n" not in str(caught.value)
