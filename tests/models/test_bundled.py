"""The bundled models: made by the recipes beside them, small, and good for what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trilemma
import trilemma_plugins.models
from trilemma.registry import catalog
from trilemma.train import read_recipe

FOLDER = Path(trilemma_plugins.models.__file__).parent
NAMES = sorted(recipe.stem for recipe in (FOLDER / "recipes").glob("*.toml"))


def test_every_recipe_has_its_model():
    registered = {entry.spec.name for entry in catalog().components("model") if entry.built_in}
    assert registered >= set(NAMES) >= {"mnist", "vdm-mnist", "cld-mnist"}


@pytest.mark.parametrize("name", NAMES)
def test_it_was_made_by_the_recipe(name):
    card = trilemma.load(name).card
    recipe = read_recipe(FOLDER / "recipes" / f"{name}.toml")
    assert card["provenance"]["recipe_sha256"] == recipe.fingerprint()
    assert card["model"]["name"] == recipe.name == name
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
    drawn = trilemma.sample(name, 4, steps=8, progress=False)
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
