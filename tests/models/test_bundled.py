"""The bundled models: made by recipes that are in the package, small, and good for what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trilemma
import trilemma_plugins.models
from trilemma.registry import catalog
from trilemma.train.recipe import Recipe, make_recipe, read_recipe
from trilemma.train.stages import read_stages

FOLDER = Path(trilemma_plugins.models.__file__).parent
FAMILIES = FOLDER.parent
NAMES = sorted(
    entry.spec.name
    for entry in catalog().components("model")
    if "trilemma_plugins.models:" in entry.spec.target
)
# Of the models that are a stage of a family's recipe.
STAGES = {
    "mnist-8": "distillation/recipes/mnist.toml",
    "mnist-4": "distillation/recipes/mnist.toml",
    "mnist-1": "distillation/recipes/mnist.toml",
    "ddgan-mnist": "ddgan/recipes/mnist.toml",
    "recovery-mnist": "recovery/recipes/mnist.toml",
}


def recipe_of(name: str) -> Recipe:
    if name not in STAGES:
        return read_recipe(FOLDER / "recipes" / f"{name}.toml")
    (stage,) = [entry for entry in read_stages(FAMILIES / STAGES[name]) if entry.name == name]
    return make_recipe(stage.table)


def test_every_recipe_of_the_folder_has_its_model():
    assert {recipe.stem for recipe in (FOLDER / "recipes").glob("*.toml")} | set(STAGES) == set(NAMES)
    assert {"mnist", "vdm-mnist", "cld-mnist", "mnist-8", "mnist-4", "recovery-mnist"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_was_made_by_the_recipe(name):
    card, recipe = trilemma.load(name).card, recipe_of(name)
    begun = card["provenance"].get("start_sha256")
    assert card["provenance"]["recipe_sha256"] == recipe.fingerprint(begun)
    assert card["model"]["name"] == name
    assert recipe.name in (name, "model")
    assert card["evaluation"] == recipe.advice
    assert card.get("sampling", {}).get("sampler") == recipe.sampling.sampler
    assert (FOLDER / f"{name}-log.jsonl").stat().st_size > 1000


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in FOLDER.glob("*/weights.safetensors")), ids=str
)
def test_it_is_small(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4_000_000


@pytest.mark.parametrize("name", NAMES)
def test_it_draws_with_what_its_card_names(name):
    steps = trilemma.load(name).card.get("sampling", {}).get("steps", 8)
    drawn = trilemma.sample(name, 4, steps=min(steps, 8), progress=False)
    assert drawn.samples.shape == (4, 1, 28, 28)
    assert bool(drawn.samples.isfinite().all())
    dark = (drawn.samples < -0.5).float().mean()
    assert 0.5 < float(dark) < 0.98  # a stroke on a dark ground


def test_a_learned_schedule_is_one_that_was_learned():
    process = trilemma.load("vdm-mnist").process
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    gamma = -process.log_snr(t)
    assert bool((gamma.diff() > 0).all())
    straight = gamma[0] + (gamma[-1] - gamma[0]) * t
    assert float((gamma - straight).abs().max()) > 0.5
