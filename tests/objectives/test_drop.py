"""Every objective replaces the class by the null one with its `drop`, and refuses a network that has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition, ScalarCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import drop_conditions
from trilemma.interfaces.process import Process

NULL = 3
OBJECTIVES = {"simple": "vp-continuous", "vlb": "vdm", "hsm": "cld", "dsm": "cld"}


class Watching(Denoiser):
    """Answers 0 and keeps the labels that it was called with."""

    def __init__(self, process: Process, null: int | None = NULL) -> None:
        super().__init__(process, "eps", (1, 2, 2), [ClassCondition("class", size=NULL, null=null)])
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = torch.empty(0)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        self.seen = cond["class"]
        return z[:, :1] * self.weight


def labels_seen(name: str, drop: Any, batch: int = 3000, **options: Any) -> Tensor:
    network = Watching(lookup.process(OBJECTIVES[name]), **options)
    objective = lookup.objective(f"{name}:drop={drop}")
    labels = torch.arange(batch) % NULL
    generator = torch.Generator().manual_seed(0)
    objective.loss(network, network, torch.zeros(batch, 1, 2, 2), {"class": labels}, generator)
    kept = network.seen != NULL
    assert torch.equal(network.seen[kept], labels[kept])
    return network.seen


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_share_of_null_classes_is_drop(name: str) -> None:
    assert not (labels_seen(name, 0.0) == NULL).any()
    assert (labels_seen(name, 1.0) == NULL).all()
    share = (labels_seen(name, 0.2) == NULL).double().mean().item()
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 3000) ** 0.5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_a_null_class_nothing_can_be_dropped(name: str) -> None:
    labels_seen(name, 0.0, null=None)
    with pytest.raises(UsageError, match="has no null"):
        labels_seen(name, 0.5, null=None)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("drop", ["-0.1", "1.5", "{'class': 2}"])
def test_a_drop_is_a_probability(name: str, drop: str) -> None:
    with pytest.raises(UsageError, match="no probability"):
        lookup.objective(f"{name}:drop={drop}")


def test_conditions_are_dropped_by_themselves() -> None:
    kinds = [
        ClassCondition("class", 3, null=3),
        ScalarCondition("level", 0, 1, null=True),
        ScalarCondition("hard", 0, 1),
    ]
    network = Watching(lookup.process("vp-continuous"))
    network.conditions = {entry.name: entry for entry in kinds}
    batch = 4000
    told = {
        "class": torch.zeros(batch, dtype=torch.int64),
        "level": torch.ones(batch),
        "hard": torch.ones(batch),
    }
    told["level_given"] = torch.ones(batch, dtype=torch.bool)

    def dropped(drop: Any) -> tuple[Tensor, Tensor]:
        found = drop_conditions(network, told, drop, torch.Generator().manual_seed(0))
        assert torch.equal(found["hard"], told["hard"])
        assert torch.equal(found["level"] == 0, ~found["level_given"])
        return found["class"] == 3, ~found["level_given"]

    label, level = dropped({"class": 0.3, "level": 0.5})
    both = (label & level).double().mean().item()
    for share, expected in ((label, 0.3), (level, 0.5)):
        assert abs(share.double().mean().item() - expected) < 0.03
    assert abs(both - 0.15) < 0.03
    assert not bool(dropped({"class": 0.3})[1].any())
    with pytest.raises(UsageError, match="condition 'hard' has no null"):
        dropped(0.5)
    with pytest.raises(UsageError, match="drop names the condition 'text', which the network does not take"):
        dropped({"text": 0.5})


def test_a_drop_by_name_is_written_in_a_recipe() -> None:
    for name in OBJECTIVES:
        written = f"{name}:drop={{'class': 0.25}}"
        assert lookup.objective(written).drop == {"class": 0.25}  # type: ignore[attr-defined]
    assert "drop=0.0" in lookup.build("objective", "simple:drop=0")[1]
    assert labels_seen("simple", {"class": 1}).eq(NULL).all()
