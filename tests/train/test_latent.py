"""Latent models are trained by a recipe that names their autoencoder."""

from __future__ import annotations

import shutil

import pytest
import torch

import trilemma
from support.linear_codes import LinearCodes
from trilemma.errors import ModelError, UsageError
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.models.building import build
from trilemma.models.card import read_card, save_model
from trilemma.train import examples
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train

AUTOENCODER = {
    "model": {"name": "linear", "kind": "autoencoder"},
    "autoencoder": {"spec": "test-linear"},
    "data": {"shape": [1, 2, 2]},
}


class Squares(InMemoryDataset):
    """64 images of 2×2 pixels."""

    def __init__(self) -> None:
        pixels = torch.randint(0, 256, (64, 1, 2, 2), generator=torch.Generator().manual_seed(0))
        super().__init__(pixels.to(torch.uint8), torch.arange(64) % 3, ("a", "b", "c"))


@pytest.fixture
def autoencoder(tmp_path, register):
    register("autoencoder", "test-linear", LinearCodes)
    register("dataset", "test-squares", Squares)
    made = build(AUTOENCODER, seed=0)
    made.normalise_over([Squares().batch(torch.arange(64))[0]])
    save_model(tmp_path / "ae", AUTOENCODER, made.state_dict())
    return tmp_path / "ae"


def recipe(coder, **changes):
    table = {
        "steps": 6,
        "batch_size": 16,
        "checkpoint_every": 2,
        "tensorboard": False,
        "dataset": {"spec": "test-squares"},
        "process": {"spec": "vp:schedule=cosine,T=100"},
        "latent": {"autoencoder": str(coder)},
        "denoiser": {"spec": "mlp", "parameterization": "v", "options": {"width": 8, "depth": 1}},
        "objective": {"spec": "simple"},
    }
    return make_recipe({key: value for key, value in {**table, **changes}.items() if value is not None})


def test_it_learns_codes_and_draws_images(autoencoder, tmp_path, monkeypatch):
    seen = []
    original = LinearCodes.encode
    monkeypatch.setattr(LinearCodes, "encode", lambda self, x: (seen.append(len(x)), original(self, x))[1])
    result = train(recipe(autoencoder), tmp_path / "run")
    assert sum(seen) == 64
    card = read_card(result.model)
    assert card["latent"]["autoencoder"] == "autoencoder"
    assert card["data"]["shape"] == [1, 2, 2]
    # The folder is whole by itself.
    shutil.rmtree(autoencoder)
    model = trilemma.load(result.model)
    assert model.shape == (2, 1, 1)
    assert not any(name.startswith("view") for name in model.state_dict())
    drawn = trilemma.sample(model, 3, steps=4)
    assert drawn.samples.shape == (3, 1, 2, 2)
    assert drawn.provenance["model"]["autoencoder"]["sha256"] == card["latent"]["sha256"]


def test_a_run_that_was_stopped_ends_with_the_same_weights(autoencoder, tmp_path):
    whole = train(recipe(autoencoder), tmp_path / "whole")
    parts = train(recipe(autoencoder, steps=6), tmp_path / "parts")
    for folder in sorted((tmp_path / "parts" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(folder)
    again = train(recipe(autoencoder), tmp_path / "parts")
    first, second = (trilemma.load(result.model).state_dict() for result in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert parts.steps == 6


def test_codes_are_made_once_where_all_are_read_and_fit(autoencoder, tmp_path, monkeypatch):
    seen = []
    original = LinearCodes.encode
    monkeypatch.setattr(LinearCodes, "encode", lambda self, x: (seen.append(len(x)), original(self, x))[1])
    kept = train(recipe(autoencoder), tmp_path / "kept")
    assert sum(seen) == 64
    seen.clear()
    # A trial batch, and three that are trained on.
    train(recipe(autoencoder, steps=3), tmp_path / "few")
    assert sum(seen) == 4 * 16
    seen.clear()
    monkeypatch.setattr(examples, "KEPT", 0)
    each = train(recipe(autoencoder), tmp_path / "each")
    assert sum(seen) == 7 * 16
    first, second = (trilemma.load(result.model).state_dict() for result in (kept, each))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_another_autoencoder_is_another_run(autoencoder, tmp_path):
    train(recipe(autoencoder), tmp_path / "run")
    made = build(AUTOENCODER, seed=0)
    save_model(autoencoder, AUTOENCODER, made.state_dict())
    with pytest.raises(ModelError, match="another recipe"):
        train(recipe(autoencoder), tmp_path / "run")


def test_what_is_no_autoencoder_and_what_draws_nothing_are_refused(autoencoder, tmp_path, one_line):
    with pytest.raises(UsageError, match="not of the kind Autoencoder") as caught:
        train(recipe("mnist-features"), tmp_path / "run")
    one_line(caught.value)
    with pytest.raises(UsageError, match=r"\[latent\] is for a denoiser"):
        recipe(autoencoder, denoiser=None, process=None, autoencoder={"spec": "test-linear"})
    assert not (tmp_path / "run").exists()
