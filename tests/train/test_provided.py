"""Conditions whose values the objective makes itself: the data set needs not have them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import trilemma
from support.levels import LEVEL, Levels
from trilemma.errors import TrilemmaError
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train

RECIPE: dict[str, Any] = {
    "steps": 3,
    "batch_size": 16,
    "tensorboard": False,
    "dataset": {"spec": "mixture2d:n=64"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {"spec": "mlp", "options": {"width": 8, "classes": 8, "conditions": [LEVEL]}},
    "objective": {"spec": "levels"},
    # The card's sampler is tried, with a value for a condition that has no null.
    "sampling": {"sampler": "ddim", "steps": 2},
    "validation": {"dataset": "mixture2d:split=test,n=32"},
}


@pytest.fixture(autouse=True)
def levels(register):
    register("objective", "levels", Levels)
    Levels.told.clear()


def recipe(**changed: Any) -> Any:
    return make_recipe({**copy.deepcopy(RECIPE), **changed})


def test_the_data_set_is_not_asked_for_it(tmp_path):
    result = train(recipe(), tmp_path / "run")
    assert "validation_loss" in result.last
    assert Levels.told
    assert all(told == {"class"} for told in Levels.told)
    model = trilemma.load(result.model)
    drawn = trilemma.sample(model, 2, steps=2, cond={"class": 3, "level": 2.5})
    assert drawn.provenance["cond"] == {"class": 3, "level": 2.5}


def test_one_that_nobody_gives_is_refused(tmp_path, one_line):
    for objective, message in (
        ("simple", "takes the condition 'level', which the data set does not give"),
        ("levels:name=height", "tells the network 'height', which takes class, level; declare it"),
    ):
        with pytest.raises(TrilemmaError, match=message) as caught:
            train(recipe(objective={"spec": objective}), tmp_path / "run")
        one_line(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_network_that_is_told_more_begins_with_the_weights_of_one_that_is_not(tmp_path):
    plain = {"spec": "mlp", "options": {"width": 8, "classes": 8}}
    first = train(recipe(objective={"spec": "simple"}, denoiser=plain), tmp_path / "first").model
    still = {"lr": 1e-30, "weight_decay": 0.0}
    second = train(recipe(start=str(first), steps=1, optimizer=still), tmp_path / "second").model
    taught, told = trilemma.load(first), trilemma.load(second)
    for key, tensor in taught.state_dict().items():
        torch.testing.assert_close(told.state_dict()[key], tensor, rtol=1e-6, atol=1e-8)
    z = torch.randn(4, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    label = {"class": torch.arange(4)}
    answers = (
        taught(z, torch.full((4,), 0.5), **label),
        told(z, torch.full((4,), 0.5), level=torch.full((4,), 3.0), **label),
    )
    torch.testing.assert_close(*answers)


def test_a_network_that_differs_in_more_does_not(tmp_path):
    deeper = {"spec": "mlp", "options": {"width": 8, "classes": 8, "depth": 4, "conditions": [LEVEL]}}
    plain = {"spec": "mlp", "options": {"width": 8, "classes": 8}}
    first = train(recipe(objective={"spec": "simple"}, denoiser=plain), tmp_path / "first").model
    with pytest.raises(TrilemmaError, match=r"blocks\.3\S+ is missing there"):
        train(recipe(start=str(first), denoiser=deeper), tmp_path / "second")
    # A network forgets no condition.
    told = train(recipe(), tmp_path / "told").model
    with pytest.raises(TrilemmaError, match="missing here"):
        train(recipe(objective={"spec": "simple"}, start=str(told), denoiser=plain), tmp_path / "third")
