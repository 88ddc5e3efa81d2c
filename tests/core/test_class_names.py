"""Classes by their names."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma.denoiser import Condition
from trilemma.errors import UsageError
from trilemma.spec import parse_value

ANIMALS = Condition("class", size=3, null=3, names=("cat", "dog", "horse"))


def test_names_and_labels_mean_the_same() -> None:
    indices = torch.arange(4)
    assert ANIMALS.encode("dog", indices).tolist() == [1, 1, 1, 1]
    assert ANIMALS.encode(["horse", 0], indices).tolist() == [2, 0, 2, 0]
    assert torch.equal(ANIMALS.encode(["cat", "horse"], indices), ANIMALS.encode([0, 2], indices))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="class='hors' is no class of this model; did you mean 'horse'"):
        ANIMALS.encode("hors", torch.arange(1))
    with pytest.raises(UsageError, match="its classes are cat, dog, horse"):
        ANIMALS.encode("zebra", torch.arange(1))
    with pytest.raises(UsageError, match="give its number"):
        Condition("class", size=3).encode("cat", torch.arange(1))


def test_the_command_line_reads_words_in_lists() -> None:
    assert parse_value("[airplane, automobile]") == ["airplane", "automobile"]
    assert parse_value("[true, cat, 3]") == [True, "cat", 3]


def test_a_loaded_model_knows_the_names_of_its_classes() -> None:
    model = trilemma.load("mnist")
    named, labelled = (
        trilemma.sample(model, 2, steps=1, cond={"class": c}).samples for c in (["7", "0"], [7, 0])
    )
    assert torch.equal(named, labelled)
