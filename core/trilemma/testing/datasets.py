"""Checks of every data set."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.column import ClassColumn, ImageColumn, ScalarColumn
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.dataset import Dataset
from trilemma.testing.generators import keeps_global_generators
from trilemma.testing.outcome import Skipped

Again = Callable[..., Dataset]

# Images that are looked at one by one.
SOME = 12
# Images of a split that are searched for in another.
MOST = 5000
# Images with fewer distinct values coincide by chance.
FEW_VALUES = 16


def dataset_checks(dataset: Dataset, again: Again | None) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong.

    Args:
        again: builds the data set once more, with further options; None where that is not possible.
    """
    yield "images are bytes of one shape", lambda: _images(dataset)
    yield "labels are places of the classes", lambda: _labels(dataset)
    yield "length and views", lambda: _length(dataset)
    yield "indices in any order, any number of times", lambda: _order(dataset)
    yield "an empty batch gives none", lambda: _empty(dataset)
    yield "an index past the end is refused", lambda: _past(dataset)
    yield "reading repeats", lambda: _repeats(dataset)
    yield "what is read is the reader's own", lambda: _own(dataset)
    yield "a batch is scaled to [-1, 1]", lambda: _batch(dataset)
    yield "conditions have a value for each example", lambda: _columns(dataset)
    yield "a batch has the values of its examples", lambda: _values(dataset)
    yield "the fingerprint knows the columns", lambda: _known(dataset)
    yield "all of it can be read", lambda: _check(dataset)
    yield "no global generator is drawn from", lambda: _generators(dataset, again)
    yield "built again it is the same", lambda: _again(dataset, again)
    yield "splits are apart", lambda: _splits(again)


def _some(dataset: Dataset) -> Tensor:
    """Indices spread over the data set, the first and the last among them."""
    count = len(dataset.labels)
    return torch.linspace(0, count - 1, min(SOME, count), dtype=torch.float64).round().long()


def _images(dataset: Dataset) -> str:
    shape = tuple(dataset.shape)
    assert len(shape) == 3, f"its shape is {shape}, not (C, H, W)"
    images = dataset.read(_some(dataset))
    expected = (len(_some(dataset)), *shape)
    assert images.dtype == torch.uint8, f"images are {images.dtype}, not uint8"
    assert images.shape == expected, f"{expected[0]} images have shape {tuple(images.shape)}, not {expected}"
    return f"{shape}"


def _labels(dataset: Dataset) -> str:
    labels, classes = dataset.labels, dataset.classes
    assert labels.dtype == torch.int64, f"labels are {labels.dtype}, not int64"
    assert labels.dim() == 1, f"labels have shape {tuple(labels.shape)}, not [N]"
    assert isinstance(classes, tuple), f"classes are a {type(classes).__name__}, not a tuple of names"
    assert all(isinstance(name, str) for name in classes), "a class has no name"
    assert len(set(classes)) == len(classes), "two classes have one name"
    if classes and len(labels):
        least, most = int(labels.min()), int(labels.max())
        assert least >= 0, f"the least label is {least}"
        assert most < len(classes), f"the greatest label is {most}, of {len(classes)} classes"
    return f"{len(classes)} classes"


def _length(dataset: Dataset) -> str:
    count, copies = len(dataset), dataset.copies
    assert count == len(dataset.labels), f"its length is {count}, of {len(dataset.labels)} labels"
    assert count, "it is empty"
    assert isinstance(copies, int), f"copies is {copies!r}, not an integer"
    assert copies >= 1, f"copies is {copies}"
    assert count % copies == 0, f"{count} examples are no {copies} views of each original"
    originals = dataset.labels[: count // copies]
    assert torch.equal(dataset.labels, originals.repeat(copies)), "a view has another label than its original"
    return f"{count // copies} originals, {copies} views"


def _order(dataset: Dataset) -> str:
    some = _some(dataset)
    alone = torch.cat([dataset.read(index.view(1)) for index in some])
    for name, places in (
        ("together", torch.arange(len(some))),
        ("backwards", torch.arange(len(some)).flip(0)),
        ("twice", torch.arange(len(some)).repeat_interleave(2)),
    ):
        assert torch.equal(dataset.read(some[places]), alone[places]), f"images read {name} are other ones"
    return f"{len(some)} images"


def _empty(dataset: Dataset) -> str:
    none, expected = torch.empty(0, dtype=torch.int64), (0, *dataset.shape)
    try:
        images = dataset.read(none)
    except Exception as error:
        # A plugin may raise anything.
        raise AssertionError(f"an empty batch raises {type(error).__name__}: {error}") from error
    assert images.shape == expected, f"an empty batch has shape {tuple(images.shape)}, not {expected}"
    return f"{expected}"


def _past(dataset: Dataset) -> str:
    count = len(dataset.labels)
    for index in (count, 2 * count + 1):
        try:
            dataset.read(torch.tensor([index]))
        except Exception:
            # Any error is accepted.
            continue
        raise AssertionError(f"image {index} of {count} is read")
    return f"{count}"


def _repeats(dataset: Dataset) -> str:
    some = _some(dataset)
    assert torch.equal(dataset.read(some), dataset.read(some)), "the same indices give other images"
    assert dataset.fingerprint() == dataset.fingerprint(), "its fingerprint is another one the next time"
    return "images and fingerprint"


def _own(dataset: Dataset) -> str:
    some = _some(dataset)
    for indices in (some, torch.arange(min(SOME, len(dataset.labels)))):
        images = dataset.read(indices)
        kept = images.clone()
        images.bitwise_not_()
        assert torch.equal(dataset.read(indices), kept), "writing to what was read changes the data set"
    return "a copy"


def _batch(dataset: Dataset) -> str:
    some = _some(dataset)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12), (torch.bfloat16, 8e-3)):
        x, _ = dataset.batch(some, dtype)
        assert x.dtype == dtype, f"a batch asked for in {dtype} is {x.dtype}"
        off = float((x.double() - (dataset.read(some).double() / 127.5 - 1)).abs().max())
        assert off <= tolerance, f"a batch in {dtype} is {off:.2g} off u/127.5 − 1"
    return "float32, float64 and bfloat16"


def _columns(dataset: Dataset) -> str:
    columns, some = dataset.columns, _some(dataset)
    assert (LABEL in columns) == bool(dataset.classes), "it has classes without their column, or the reverse"
    for name, column in columns.items():
        assert len(column) == len(dataset), f"{name!r} has {len(column)} values for {len(dataset)} examples"
        missing = column.missing
        assert missing.dtype == torch.bool, f"{name!r} says which are missing in {missing.dtype}"
        found = column.at(some)
        assert len(found) == len(some), f"{name!r} gives {len(found)} values of {len(some)} examples"
        if isinstance(column, ScalarColumn):
            known = column.values[~missing]
            inside = bool(((known >= column.low) & (known <= column.high)).all())
            assert inside, f"{name!r} leaves its range from {column.low} to {column.high}"
        if isinstance(column, ClassColumn):
            assert int(column.values.max()) < len(column.classes), f"{name!r} has a label past its classes"
        if isinstance(column, ImageColumn):
            assert found.dtype == torch.uint8, f"images of {name!r} are {found.dtype}, not uint8"
            assert tuple(found.shape[1:]) == column.shape, (
                f"images of {name!r} have another shape than it says"
            )
    return ", ".join(f"{name} ({column.kind})" for name, column in columns.items()) or "none"


def _values(dataset: Dataset) -> str:
    some = _some(dataset).flip(0)
    _, values = dataset.batch(some)
    assert set(values) == set(dataset.columns), (
        f"it gives {sorted(values)}, its columns are {sorted(dataset.columns)}"
    )
    for name, column in dataset.columns.items():
        together = values[name]
        for place, index in enumerate(some):
            alone = column.at(index.view(1))
            assert _same(together[place : place + 1], alone), f"{name!r} of an example is another in a batch"
    return f"{len(values)} of {len(some)} examples"


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return bool(torch.equal(first.nan_to_num(-1), second.nan_to_num(-1)))
    return bool(first == second)


def _known(dataset: Dataset) -> str:
    others = [name for name in dataset.columns if name != LABEL]
    if not others:
        return "no column beside the class"
    bare = copy.copy(dataset)
    bare._columns = {}
    assert bare.fingerprint() != dataset.fingerprint(), (
        f"its fingerprint is the same without {', '.join(others)}"
    )
    return ", ".join(others)


def _check(dataset: Dataset) -> str:
    try:
        dataset.check()
    except Exception as error:
        # A plugin may raise anything.
        raise AssertionError(f"check() raises {type(error).__name__}: {error}") from error
    return f"{len(dataset.labels)} examples"


def _generators(dataset: Dataset, again: Again | None) -> str:
    def use() -> None:
        made = dataset if again is None else again()
        made.batch(_some(made))

    return keeps_global_generators(use)


def _again(dataset: Dataset, again: Again | None) -> str:
    if again is None:
        raise Skipped("it was given as an object; give its spec or its class")
    other, some = again(), _some(dataset)
    assert torch.equal(other.labels, dataset.labels), "built again it has other labels"
    assert other.classes == dataset.classes, "built again it has other classes"
    first, second = ({n: c.digest() for n, c in made.columns.items()} for made in (dataset, other))
    assert first == second, "built again it has other values of its conditions"
    assert torch.equal(other.read(some), dataset.read(some)), "built again it has other images"
    assert other.fingerprint() == dataset.fingerprint(), "built again it has another fingerprint"
    return "labels, images and fingerprint"


def _splits(again: Again | None) -> str:
    if again is None:
        raise Skipped("it was given as an object; give its spec or its class")
    try:
        train, test = again(split="train"), again(split="test")
    except (UsageError, TypeError) as error:
        raise Skipped(f"it has no splits train and test: {error}") from error
    assert tuple(train.shape) == tuple(test.shape), f"images of {train.shape} and of {test.shape}"
    assert train.classes == test.classes, "the splits have other classes"
    first, second = (_pixels(part) for part in (train, test))
    assert not (first.shape == second.shape and torch.equal(first, second)), "the splits hold the same images"
    if first.shape[1] < FEW_VALUES:
        return f"{len(train)} and {len(test)}, too small to be told apart"
    known = Counter(bytes(row) for row in first.numpy())
    common = sum(bytes(row) in known for row in second.numpy())
    # As many coincide by chance as do within the training images.
    twins = sum(times for times in known.values() if times > 1) / len(first)
    expected = len(second) * twins
    assert common <= len(second) // 100 + expected + 4 * math.sqrt(expected), (
        f"{common} of {len(second)} test images are training images"
    )
    return f"{len(train)} and {len(test)}, {common} of {len(second)} alike"


def _pixels(part: Dataset) -> Tensor:
    """The originals of a split [N, C·H·W], at most MOST, spread over it."""
    count = len(part) // part.copies
    spread = torch.arange(count) if count <= MOST else (torch.arange(MOST) * count) // MOST
    images = [
        part.read(spread[low:high]) for low, high in pairwise([*range(0, len(spread), 500), len(spread)])
    ]
    return torch.cat(images).flatten(1)
