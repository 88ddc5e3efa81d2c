"""Classes by their names."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.registry.spec import parse_value

ANIMALS = ClassCondition("class", size=3, null=3, names=("cat", "dog", "horse"))


def test_names_and_labels_mean_the_same() -> None:
    indices = torch.arange(4)
    assert ANIMALS.prepare("dog").take(indices)["class"].tolist() == [1, 1, 1, 1]
    assert ANIMALS.prepare(["horse", 0]).take(indices)["class"].tolist() == [2, 0, 2, 0]
    assert torch.equal(
        ANIMALS.prepare(["cat", "horse"]).take(indices)["class"],
        ANIMALS.prepare([0, 2]).take(indices)["class"],
    )


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="class='hors' is no class of this model; did you mean 'horse'"):
        ANIMALS.prepare("hors").take(torch.arange(1))["class"]
    with pytest.raises(UsageError, match="its classes are cat, dog, horse"):
        ANIMALS.prepare("zebra").take(torch.arange(1))["class"]
    with pytest.raises(UsageError, match="give its number"):
        ClassCondition("class", size=3).prepare("cat").take(torch.arange(1))["class"]


def test_a_class_that_is_called_by_a_number_is_meant_by_the_number_in_quotes() -> None:
    years = ClassCondition("class", size=2, names=("1984", "2001"))
    assert years.prepare("2001").take(torch.arange(1))["class"].tolist() == [1]
    with pytest.raises(UsageError, match='class=2001 is a label out of range, "2001" in quotes a name; give'):
        years.prepare(2001).take(torch.arange(1))["class"]


def test_the_command_line_reads_words_in_lists() -> None:
    assert parse_value("[airplane, automobile]") == ["airplane", "automobile"]
    assert parse_value("[true, cat, 3]") == [True, "cat", 3]
    odd = ["T-shirt/top", "7up", "3.5mm", "a.b", "c++", "50%", "x=y", "n01440764", "28x28", "class", "größe"]
    for name in odd:
        assert parse_value(name) == name
    assert parse_value(f"[{', '.join(odd)}]") == odd
    assert parse_value('["traffic light", T-shirt/top, 3]') == ["traffic light", "T-shirt/top", 3]
    assert parse_value("[[a-b], c]") == [["a-b"], "c"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[traffic light, a-b]",
            "'traffic light' is neither a literal nor a bare word; put strings with blanks",
        ),
        ("[a-b, , c]", "empty entry"),
        ("[a-b, c-d)]", "closes nothing"),
        ("[it's, a]", "is missing; check"),
    ],
)
def test_lists_of_words_that_cannot_be_read_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_value(text)


def test_a_loaded_model_knows_the_names_of_its_classes() -> None:
    model = trilemma.load("mnist")
    named, labelled = (
        trilemma.sample(model, 2, steps=1, cond={"class": c}).samples for c in (["7", "0"], [7, 0])
    )
    assert torch.equal(named, labelled)
