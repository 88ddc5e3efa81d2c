"""The splits of a data set: its own, or two parts by the stated rule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.evaluate import Evaluator, Metric, Observation
from trilemma.evaluate.splits import HELD_OUT_RULE, RULE, Splits, Training
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.interfaces.held_out import held_out


def numbered(count: int) -> InMemoryDataset:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).to(torch.uint8)
    return InMemoryDataset(images.contiguous(), torch.arange(count) % 2, ("even", "odd"))


def building(whole: InMemoryDataset | None, **own: InMemoryDataset) -> Callable[..., tuple[Any, str]]:
    def build(kind: str, spec: str, **options: str) -> tuple[Any, str]:
        found = own.get(options["split"]) if options else whole
        if found is None:
            raise UsageError(f"there is no {options or 'whole'}")
        return found, spec

    return build


def values(part: Any) -> list[int]:
    return part.read(torch.arange(len(part.labels)))[:, 0, 0, 0].tolist()


def test_its_own_splits_come_first() -> None:
    train, test = numbered(5), numbered(3)
    splits = Splits("x", building(numbered(9), train=train, test=test))
    assert splits.part("test") is test
    assert splits.part("train") is train
    assert splits.rule is None


def test_without_splits_the_tenth_of_smallest_sha256_is_test() -> None:
    whole = numbered(57)
    splits = Splits("x", building(whole))
    digest = {value: hashlib.sha256(bytes([value] * 12)).hexdigest() for value in range(57)}
    expected = sorted(sorted(digest, key=digest.__getitem__)[:5])
    assert values(splits.part("test")) == expected
    assert values(splits.part("train")) == [value for value in range(57) if value not in expected]
    assert splits.part("test").labels.tolist() == [value % 2 for value in expected]
    assert splits.part("test").classes == ("even", "odd")
    assert splits.part("train").shape == (3, 2, 2)
    assert splits.rule == RULE


def test_the_order_of_the_images_does_not_matter() -> None:
    whole = numbered(40)
    turned = InMemoryDataset(whole.images.flip(0), whole.labels.flip(0), whole.classes)
    one, other = (Splits("x", building(data)).part("test") for data in (whole, turned))
    assert sorted(values(one)) == sorted(values(other))


@pytest.mark.parametrize("asked", ["train", "test"])
def test_a_data_set_with_one_split_alone_is_not_split_by_the_rule(asked: str) -> None:
    only = {"train": "test", "test": "train"}[asked]
    with pytest.raises(UsageError, match="there is no"):
        Splits("x", building(numbered(9), **{only: numbered(9)})).part(asked)


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="no splits and 1 images"):
        Splits("x", building(numbered(1))).part("train")


@pytest.mark.parametrize(
    ("spec", "stated", "expected"),
    [
        ("x:size=2", "x:size=2", ["train"]),
        ("x:size=2", "x:size=2,split=train", ["train"]),
        ("x:split=test,size=2", "x:size=2,split=test", ["test"]),
        ("x:size=2", "x:size=3", None),
        ("x:size=2", "y:size=2", None),
        ("x:size=2", None, None),
    ],
)
def test_what_a_model_has_seen_is_what_its_card_says(spec, stated, expected) -> None:
    splits = Splits(spec, building(None, train=numbered(9), test=numbered(3)))
    assert splits.part("train")
    assert splits.trained_on(Training.of({"data": {"dataset": stated}})) == expected


def test_a_model_of_a_data_set_without_splits_has_seen_both() -> None:
    splits = Splits("x", building(numbered(20)))
    assert splits.part("train")
    assert splits.trained_on(Training("x")) == ["train", "test"]


def held_out_card(data: InMemoryDataset, **made: Any) -> dict[str, Any]:
    stated = {"held_out": 0.2, "seed": 3, "data_sha256": data.fingerprint()}
    return {"data": {"dataset": "x"}, "provenance": {**stated, **made}}


def viewed(count: int, copies: int) -> InMemoryDataset:
    """Images with mirrored or cropped views, which have levels of their own."""
    images = torch.arange(count * copies).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).to(torch.uint8)
    data = InMemoryDataset(images.contiguous(), torch.zeros(count * copies, dtype=torch.int64), ())
    data.copies = copies
    return data


@pytest.mark.parametrize("copies", [1, 2, 10])
def test_what_was_held_out_of_the_training_is_test(copies: int) -> None:
    data = viewed(20, copies)
    training = Training.of(held_out_card(data))
    splits = Splits("x", building(data), training)
    trained, kept = held_out(data, 0.2, seed=3)
    assert values(splits.part("test")) == values(kept)
    assert sorted(values(splits.part("train")) + values(kept)) == list(range(20))
    assert set(values(splits.part("train"))) == {value for value in values(trained) if value < 20}
    assert splits.rule == HELD_OUT_RULE
    assert splits.trained_on(training) == ["train"]


@pytest.mark.parametrize("copies", [2, 10])
@pytest.mark.parametrize("own", [False, True])
def test_views_are_no_images_of_a_split(copies: int, own: bool) -> None:
    data = viewed(20, copies)
    splits = Splits("x", building(None, train=data, test=data) if own else building(data))
    found = [values(splits.part(name)) for name in ("train", "test")]
    assert sorted(found[0]) == (list(range(20)) if own else sorted(set(range(20)) - set(found[1])))
    assert sum(map(len, found)) == (40 if own else 20)


@pytest.mark.parametrize(
    ("made", "seen"),
    [
        ({"data_sha256": "0" * 64}, None),  # the folder has changed since
        ({"data_sha256": None}, None),
        ({"held_out": 0.0}, ["train", "test"]),
    ],
)
def test_what_was_held_out_of_other_data_is_not_looked_for(made: dict[str, Any], seen: Any) -> None:
    data = numbered(20)
    training = Training.of(held_out_card(data, **made))
    splits = Splits("x", building(data), training)
    assert splits.part("test")
    assert splits.rule == RULE
    assert splits.trained_on(training) == seen


@pytest.mark.parametrize(
    ("made", "seen"),
    [
        ({"seed": 4}, None),
        ({"held_out": 0.4}, None),
        ({"held_out": 0.0}, ["train", "test"]),
        ({"start": "another"}, None),
        ({"start": "another", "start_held_out": False}, None),
        ({"start": "another", "start_held_out": True}, ["train"]),
    ],
)
def test_another_model_may_have_seen_what_was_held_out_of_this_one(made: dict[str, Any], seen: Any) -> None:
    data = numbered(20)
    splits = Splits("x", building(data), Training.of(held_out_card(data)))
    assert splits.part("test")
    assert splits.trained_on(Training.of(held_out_card(data, **made))) == seen


def test_a_folder_of_images_is_split(tmp_path) -> None:
    for value in range(20):
        folder = tmp_path / "photos" / ("even", "odd")[value % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (value, 0, 0)).save(folder / f"{value}.png")
    splits = Splits(f"images:root='{tmp_path}/photos'", lookup.build)
    test, train = splits.part("test"), splits.part("train")
    assert sorted(values(test) + values(train)) == list(range(20))
    assert len(test.labels) == 2
    assert splits.rule == RULE
    with pytest.raises(UsageError, match="sise"):
        Splits("images:root=x,sise=2", lookup.build).part("train")


class Classifying:
    """Classes that some data may have, with a logit that is the pixel."""

    identity = "classifying"

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes

    def takes(self, shape: tuple[int, ...]) -> bool:
        return True

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        flat = images.flatten(1)
        return Observation(flat, flat[:, :2], labels)


class Logits(Metric[Any]):
    """Whether logits were seen."""

    def accumulator(self) -> Any:
        class Seen:
            logits = False

            def update(self, batch: Observation) -> None:
                self.logits |= batch.logits is not None

        return Seen()

    def value(self, reference: Any, samples: Any) -> float:
        return float(samples.logits)


@pytest.mark.parametrize(("classes", "expected"), [(("even", "odd"), 1.0), (("cat", "dog"), 0.0)])
def test_logits_for_other_classes_are_not_looked_at(monkeypatch, classes, expected) -> None:
    found = {"network": Classifying(classes), "logits": Logits()}
    data = building(numbered(20))
    monkeypatch.setattr(
        "trilemma.evaluate.evaluator.lookup.build",
        lambda kind, spec, **options: (
            data(kind, spec, **options) if kind == "dataset" else (found[spec], spec)
        ),
    )
    measured = Evaluator("x", "network", ("logits",)).measure([(numbered(4).images, numbered(4).labels)])
    assert measured == {"logits": expected}


class Model:
    """A model by its card alone."""

    def __init__(self, card: dict[str, Any] | None) -> None:
        self.card = card


@pytest.mark.parametrize(
    ("card", "reference", "measured"),
    [
        ({}, "test", "test"),
        ({"held_out": 0.0}, "train", "test"),
        ({"data_sha256": "0" * 64}, "train", "test"),
        ({"start": "another"}, "test", "train"),
    ],
)
def test_the_reference_and_what_likelihoods_are_of_was_not_trained_on(
    monkeypatch, card: dict[str, Any], reference: str, measured: str
) -> None:
    data = viewed(20, 2)
    build = building(data)
    monkeypatch.setattr("trilemma.evaluate.evaluator.lookup.build", build)
    model: Any = Model(held_out_card(data, **card))
    found = Evaluator.of(model)
    assert found.reference == reference
    assert found.measured_split(model) == measured
    assert Evaluator.of(model, reference="train").reference == "train"
    model.card["evaluation"] = {"reference": "train"}
    assert Evaluator.of(model).reference == "train"


def test_a_data_set_with_splits_is_measured_on_its_own_test_images(monkeypatch) -> None:
    data = numbered(20)
    build = building(None, train=data, test=numbered(5))
    monkeypatch.setattr("trilemma.evaluate.evaluator.lookup.build", build)
    found = Evaluator.of(Model(held_out_card(data)))  # type: ignore[arg-type]
    assert (found.reference, len(found.split("test").labels)) == ("test", 5)
    monkeypatch.setattr("trilemma.evaluate.evaluator.lookup.build", building(None, train=data))
    assert Evaluator.of(Model(held_out_card(data))).reference == "train"  # type: ignore[arg-type]
