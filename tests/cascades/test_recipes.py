"""The recipes of this family: what they share, and how large the models become."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

import trilemma_plugins.cascades
from trilemma.models.building import build
from trilemma.train.recipe import read_recipe

HOME = Path(trilemma_plugins.cascades.__file__).parent / "recipes"


def network(name, shape):
    recipe = read_recipe(HOME / f"{name}.toml")
    return build({**recipe.card_tables(), "data": {"shape": list(shape)}}, seed=0)


@pytest.fixture(scope="module")
def stages():
    return [network(f"mnist-{side}", (1, side, side)) for side in (7, 14, 28)]


def test_the_stages_on_mnist_follow_each_other_in_four_megabytes(stages):
    shapes = [stage.image_shape for stage in stages]
    assert [stage.conditions["low"].shape for stage in stages[1:]] == shapes[:2]
    assert all(stage.conditions["low_level"].low == pytest.approx(1.0986) for stage in stages[1:])
    assert all(stage.conditions["class"].size == 10 for stage in stages)
    # In half precision, with a part for the cards.
    assert sum(2 * weight.numel() for stage in stages for weight in stage.state_dict().values()) < 3.9e6
    assert {read_recipe(HOME / f"mnist-{side}.toml").weights_dtype for side in (7, 14, 28)} == {"float16"}


def test_the_plain_upscaler_is_the_same_recipe_but_for_its_pictures():
    path = HOME / "emoji-4x.toml"
    comment = next(line for line in path.read_text().splitlines() if "trilemma train" in line)
    _, _, file, *words = shlex.split(comment.lstrip("# "))
    assert file == path.name
    assert words[::2] == ["--set"] * (len(words) // 2)
    own, plain = read_recipe(path), read_recipe(path, words[1::2])
    assert (own.name, plain.name) == ("emoji-4x", "emoji-4x-plain")
    assert "by=bsr-light" in own.dataset.spec
    assert "by=bicubic-antialias,split=train" in plain.dataset.spec
    left = {key: value for key, value in own.to_dict().items() if key not in ("name", "dataset")}
    assert left == {key: value for key, value in plain.to_dict().items() if key not in ("name", "dataset")}


def test_the_upscaler_makes_four_pixels_of_one():
    made = network("emoji-4x", (3, 64, 64))
    assert made.conditions["low"].shape == (3, 16, 16)
    answer = made(
        torch.zeros(1, 3, 64, 64),
        torch.full((1,), 0.5),
        **made.prepare({"low": torch.zeros(1, 3, 16, 16), "low_level": 10.0}).take(torch.arange(1)),
    )
    assert answer.shape == (1, 3, 64, 64)
