"""Recipes: what is read, what is refused, and what the parts of a run compute."""

import itertools
import math

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.numerics.step_keys import step_generator
from trilemma.train.data_order import DataOrder
from trilemma.train.ema import Ema
from trilemma.train.recipe import make_recipe, read_recipe
from trilemma.train.schedule import learning_rate


def test_overrides_reach_nested_keys(tiny_recipe):
    overrides = ["steps=7", "optimizer.lr=2e-3", "tensorboard=true", "denoiser.options.blocks=2"]
    recipe = read_recipe(tiny_recipe, overrides)
    assert (recipe.steps, recipe.optimizer.lr, recipe.tensorboard) == (7, 2e-3, True)
    assert recipe.denoiser.options["blocks"] == 2
    assert recipe.optimizer.warmup == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("step=5", "did you mean 'steps'"),
        ("optimizer.learning=5", "optimizer.learning"),
        ("steps=0", "at least 1"),
        ("steps=many", "expected int"),
        ("steps=true", "expected int"),
        ("precision=int8", "no, bf16, fp16"),
        ("ema=1.0", "below 1"),
        ("steps", "key=value"),
        ("steps.x=1", "not a table"),
    ],
)
def test_bad_values_are_one_line_errors(tiny_recipe, override, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_recipe(tiny_recipe, [override])
    assert "\n" not in str(caught.value)


def test_missing_files_keys_and_bad_toml_are_named(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_recipe(tmp_path / "none.toml")
    path = tmp_path / "recipe.toml"
    path.write_text("steps = 3")
    with pytest.raises(UsageError, match="'dataset' is missing"):
        read_recipe(path)
    path.write_text("steps = = 3")
    with pytest.raises(UsageError, match="no valid TOML"):
        read_recipe(path)


def test_the_fingerprint_is_what_the_weights_depend_on(tiny_recipe):
    first = read_recipe(tiny_recipe).fingerprint()
    for beside in ("steps=24", "log_every=7", "samples.every=5", "name=other", "keep=9", "tensorboard=true"):
        assert read_recipe(tiny_recipe, [beside]).fingerprint() == first
    for decisive in ("steps=25", "seed=1", "ema=0.9", "optimizer.lr=0.5", "compile=true", "precision=bf16"):
        assert read_recipe(tiny_recipe, [decisive]).fingerprint() != first


def test_an_epoch_sees_every_example_once_and_processes_share_it():
    whole = DataOrder(12, 4, seed=3)
    epoch = torch.cat([whole.indices(step) for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))
    assert not torch.equal(whole.indices(0), whole.indices(3))
    halves = [DataOrder(12, 4, seed=3, rank=rank, world=2).indices(1) for rank in range(2)]
    assert torch.equal(torch.stack(halves, 1).flatten(), whole.indices(1))


def test_order_is_a_function_of_the_step_alone():
    visited = DataOrder(30, 4, seed=0)
    for step in range(20):
        visited.indices(step)
    assert torch.equal(visited.indices(9), DataOrder(30, 4, seed=0).indices(9))


@pytest.mark.parametrize("arguments", [(3, 4, 0), (12, 5, 0, 0, 2)])
def test_impossible_batches_are_refused(arguments):
    with pytest.raises(UsageError):
        DataOrder(*arguments)


def test_generators_of_different_keys_differ():
    draws = {
        tuple(torch.rand(4, generator=step_generator(seed, step, stream, rank)).tolist())
        for seed in range(3)
        for step in range(3)
        for stream in range(3)
        for rank in range(3)
    }
    assert len(draws) == 81


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    rates = [learning_rate(k, 110, 10, 1.0, 0.1) for k in range(111)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_ema_is_the_weighted_mean_of_the_past():
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
    ema = Ema(layer, 0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 4.0, 8.0] * 5):
        with torch.no_grad():
            layer.weight.fill_(value)
        ema.update(layer, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert math.isclose(float(ema.state_dict()["weight"]), expected, rel_tol=1e-6)


def test_a_key_that_came_later_changes_no_fingerprint_at_its_default():
    """A run of before such keys goes on; this recipe's fingerprint was taken then."""
    table = {
        "steps": 20,
        "batch_size": 8,
        "dataset": {"spec": "digits"},
        "process": {"spec": "vp:schedule=cosine,T=50"},
        "objective": {"spec": "simple:drop=0.2"},
        "denoiser": {
            "options": {"channels": [8], "blocks": 1, "classes": 10, "patch": 2, "groups": 4, "dropout": 0.3}
        },
        "optimizer": {"lr": 0.01, "warmup": 4},
    }
    assert (
        make_recipe(table).fingerprint() == "65fceb3aa9c8b456a63fde52cb83ca62744a60ccdcfd9ee99cb997456e605c18"
    )
    for later in ({"ema_warmup": 9}, {"optimizer": {**table["optimizer"], "kind": "adam"}}):
        assert make_recipe({**table, **later}).fingerprint() != make_recipe(table).fingerprint()
