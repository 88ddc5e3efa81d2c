"""Weights depend on the recipe and the data, and on nothing else."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from trilemma.errors import UsageError
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.recipe import Recipe, read_recipe
from trilemma.train.trainer import train

SHORT = ["steps=6", "checkpoint_every=6", "log_every=6", "samples.n=2", "samples.steps=2"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def end_of(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint."""
    train(recipe, folder)
    groups = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).tensors
    return {f"{group}/{name}": tensor for group in groups for name, tensor in groups[group].items()}


@pytest.fixture
def plain(tiny_recipe, tmp_path):
    return end_of(read_recipe(tiny_recipe, SHORT), tmp_path / "plain")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize(
    "beside",
    [
        ["samples.every=1"],
        ["samples.every=4", "checkpoint_every=2"],
        ["log_every=1"],
        ["checkpoint_every=1", "keep=1"],
    ],
    ids=str,
)
def test_not_on_how_often_something_is_drawn_logged_or_saved(tiny_recipe, tmp_path, plain, beside):
    other = end_of(read_recipe(tiny_recipe, SHORT + beside), tmp_path / "other")
    assert_same(plain, other)


def test_dropout_is_part_of_what_is_compared(tiny_recipe, tmp_path, plain):
    without = end_of(read_recipe(tiny_recipe, [*SHORT, "denoiser.options.dropout=0.0"]), tmp_path / "without")
    assert any(not torch.equal(plain[name], without[name]) for name in plain)


@pytest.mark.parametrize(
    "surroundings",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["no_grad", "inference_mode", "autocast", "default device"],
)
def test_not_on_what_the_caller_has_set(tiny_recipe, tmp_path, plain, surroundings):
    recipe = read_recipe(tiny_recipe, SHORT)
    with surroundings():
        train(recipe, tmp_path / "other")
    assert_same(plain, end_of(recipe, tmp_path / "other"))


def test_not_on_the_caller_s_generators_which_stay_as_they_are(tiny_recipe, tmp_path, plain):
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    other = end_of(read_recipe(tiny_recipe, [*SHORT, "samples.every=2"]), tmp_path / "other")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    assert_same(plain, other)


@pytest.mark.parametrize(
    "wish", [{"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, {"ACCELERATE_MIXED_PRECISION": "bf16"}]
)
def test_not_on_the_environment(tiny_recipe, tmp_path, plain, monkeypatch, wish):
    also = {
        "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_DOWNCAST_BF16": "1",
    }
    for name, value in (wish | also).items():
        monkeypatch.setenv(name, value)
    assert_same(plain, end_of(read_recipe(tiny_recipe, SHORT), tmp_path / "other"))


def test_another_default_dtype_is_refused_before_anything_is_written(tiny_recipe, tmp_path):
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(UsageError, match=r"call torch.set_default_dtype\(torch.float32\) first"):
            train(read_recipe(tiny_recipe, SHORT), tmp_path / "run")
    finally:
        torch.set_default_dtype(torch.float32)
    assert not (tmp_path / "run").exists()


def test_one_precision_after_another_and_beside_another(tiny_recipe, tmp_path, plain):
    """In one process: bf16 alone, then float32 and bf16 in threads of their own, all with dropout."""
    recipes = {
        "no": read_recipe(tiny_recipe, SHORT),
        "bf16": read_recipe(tiny_recipe, [*SHORT, "precision=bf16"]),
    }
    alone = {"no": plain, "bf16": end_of(recipes["bf16"], tmp_path / "alone")}
    assert any(not torch.equal(plain[name], alone["bf16"][name]) for name in plain)
    found = {}
    threads = [
        threading.Thread(
            target=lambda name=name: found.update({name: end_of(recipes[name], tmp_path / name)})
        )
        for name in recipes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in recipes:
        assert_same(alone[name], found[name])
