"""The recipes of the feature networks and of the classifier of noised digits, cut to a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trilemma
from trilemma.models.building import build
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train
from trilemma_plugins.guidances.bundled import load_classifier
from trilemma_plugins.metrics.features import MnistFeatures
from trilemma_plugins.metrics.network import DigitNetwork

FAMILIES = Path(__file__).parents[2] / "plugins" / "trilemma_plugins"
SHORT = [
    "steps=40",
    "optimizer.warmup=5",
    "validation.every=40",
    "validation.n=500",
    "ema=0.8",
    "log_every=40",
]


def test_a_feature_network_learns_digits_and_measures(data_root, tmp_path):
    """In 40 steps from a tenth to most of them."""
    recipe = read_recipe(FAMILIES / "metrics" / "recipes" / "mnist-features.toml", SHORT)
    result = train(recipe, tmp_path / "run")
    assert result.last["validation_accuracy"] > 0.8
    network = MnistFeatures(str(result.model))
    test = trilemma.dataset("mnist:split=test")
    seen = network.observe(test.batch(torch.arange(200))[0])
    assert float((seen.logits.argmax(1) == test.labels[:200]).float().mean()) > 0.8
    assert network.identity.startswith("mnist-features sha256:")


def test_a_classifier_of_noised_digits_learns_and_guides(data_root, tmp_path):
    recipe = read_recipe(FAMILIES / "guidances" / "recipes" / "mnist-classifier.toml", SHORT)
    result = train(recipe, tmp_path / "run")
    # Over all times; near t = 1 nothing is left to see.
    assert result.last["validation_accuracy"] > 0.2
    network = load_classifier(result.model)
    assert network.process.table == 1000
    drawn = trilemma.sample(
        "mnist", 2, steps=2, sampler="ddim", guidance=f"classifier:model='{result.model}',label=7"
    )
    assert drawn.samples.isfinite().all()


@pytest.mark.parametrize("name", ["mnist-features", "image-features"])
def test_every_recipe_reads(name):
    recipe = read_recipe(FAMILIES / "metrics" / "recipes" / f"{name}.toml")
    assert (recipe.kind, recipe.name) == ("features", name)


def test_the_normalised_network_is_the_plain_one_with_norms_between():
    """With running statistics of nothing and no affine part, a norm is the identity but for its epsilon."""
    card = {
        "model": {"name": "n", "kind": "features"},
        "features": {"spec": "digit-network", "options": {"normalised": True}},
        "data": {"shape": [1, 28, 28], "classes": list("0123456789")},
    }
    normalised = build(card, seed=0).eval()
    plain = DigitNetwork().eval()
    plain.load_state_dict({key: value for key, value in normalised.state_dict().items() if "norm" not in key})
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for found, expected in zip(normalised(images), plain(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
