"""scikit-learn's digits: a fixed split, bytes, and how to get them."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

import trilemma
from trilemma.errors import PluginUnavailable, UsageError


@pytest.fixture
def bunch():
    return pytest.importorskip("sklearn.datasets").load_digits()


def test_the_splits_part_all_images_class_by_class(bunch):
    train, test = (trilemma.dataset(f"digits:split={split}") for split in ("train", "test"))
    assert (len(train), len(test)) == (1442, 355)
    for label in range(10):
        of_class = torch.from_numpy(bunch.images[bunch.target == label])
        scaled = (of_class * 255 / 16).round().to(torch.uint8).unsqueeze(1)
        chosen = torch.arange(len(scaled)) % 5 == 4
        assert torch.equal(test.images[test.labels == label], scaled[chosen])
        assert torch.equal(train.images[train.labels == label], scaled[~chosen])


def test_images_are_bytes_that_use_the_whole_range(bunch):
    data = trilemma.dataset("digits")
    assert data.images.shape == (1442, 1, 8, 8)
    assert data.shape == (1, 8, 8)
    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.classes == tuple("0123456789")
    assert (int(data.images.min()), int(data.images.max())) == (0, 255)
    assert len(data.images.unique()) == 17
    images, _ = data.batch(torch.arange(len(data)))
    assert (float(images.min()), float(images.max())) == (-1.0, 1.0)


def test_the_split_is_the_same_every_time(bunch):
    first, second = trilemma.dataset("digits:split=test"), trilemma.dataset("digits:split=test")
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


def test_an_unknown_split_is_refused(bunch):
    with pytest.raises(UsageError, match="expected train or test"):
        trilemma.dataset("digits:split=all")


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    module = "trilemma_plugins.digits.dataset"
    for name in [name for name in sys.modules if name == module or name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delattr(importlib.import_module("trilemma_plugins.digits"), "dataset", raising=False)
    with pytest.raises(PluginUnavailable) as caught:
        trilemma.dataset("digits")
    assert 'pip install "trilemma[digits]"' in str(caught.value)
    assert "\n" not in str(caught.value)
