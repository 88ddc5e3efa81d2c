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
from trilemma.evaluate.splits import RULE, Splits
from trilemma.interfaces.dataset import InMemoryDataset


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
    assert splits.trained_on(stated) == expected


def test_a_model_of_a_data_set_without_splits_has_seen_both() -> None:
    splits = Splits("x", building(numbered(20)))
    assert splits.part("train")
    assert splits.trained_on("x") == ["train", "test"]


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
