"""A training that begins with the weights of a model: which it takes, which it refuses, what it remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trilemma
from trilemma.errors import ModelError, TrilemmaError
from trilemma.models.card import read_card, save_model
from trilemma.train.checkpoint import list_checkpoints
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

STILL = ["steps=1", "optimizer.lr=1e-30", "optimizer.weight_decay=0.0"]


@pytest.fixture
def model(tiny_recipe, tmp_path) -> Path:
    """A model that the tiny recipe trained."""
    return train(read_recipe(tiny_recipe, ["steps=3"]), tmp_path / "first").model


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "weights.safetensors")


def test_it_begins_with_those_weights(tiny_recipe, tmp_path, model):
    """With a learning rate of nothing, the averaged weights stay what they were."""
    result = train(read_recipe(tiny_recipe, [*STILL, f"start={model}"]), tmp_path / "second")
    found, wanted = weights(result.model), weights(model)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-8)
    other = weights(train(read_recipe(tiny_recipe, STILL), tmp_path / "third").model)
    assert any(not torch.allclose(other[name], tensor) for name, tensor in wanted.items())
    card, given = read_card(result.model), read_card(model)
    assert card["provenance"]["start"] == given["model"]["name"]
    assert card["provenance"]["start_sha256"] == given["weights"]["sha256"]


def test_a_run_is_known_by_the_weights_it_began_with_not_by_their_place(tiny_recipe, tmp_path, model):
    asked = ["steps=2", f"start={model}"]
    folder = tmp_path / "run"
    train(read_recipe(tiny_recipe, asked), folder)
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    train(read_recipe(tiny_recipe, ["steps=2", f"start={moved}"]), folder)
    assert len(list_checkpoints(folder / "checkpoints")) == 1
    tensors = weights(moved)
    tensors["outlet.bias"] += 1
    card = {key: value for key, value in read_card(moved).items() if key not in ("format", "weights")}
    save_model(moved, card, tensors)
    for overrides in (["steps=2", f"start={moved}"], ["steps=2"]):
        with pytest.raises(ModelError, match="another recipe"):
            train(read_recipe(tiny_recipe, overrides), folder)


def test_a_recipe_without_a_start_is_known_as_before(tiny_recipe):
    recipe = read_recipe(tiny_recipe)
    assert recipe.fingerprint() == read_recipe(tiny_recipe, ["start=mnist"]).fingerprint()
    assert recipe.fingerprint("a") != recipe.fingerprint("b") != recipe.fingerprint()


OPTIONS = "{'channels': [8], 'blocks': 1, 'classes': 10, 'patch': 4, 'groups': 4, 'dropout': 0.2}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "'classes': 10",
            "was trained on 10 classes and this network has none; set denoiser.options.classes = 10",
        ),
        ("[8]", r"mlp.0.weight is \(32, 8\) there, \(64, 16\) here; take its card's"),
        ("'blocks': 1", "is missing there"),
        ("parameterization", 'predicts "v", the recipe says "eps"; set denoiser.parameterization = "v"'),
    ],
)
def test_another_network_is_refused_in_one_line(tiny_recipe, tmp_path, model, change, message):
    new = {"'classes': 10": "'classes': 0", "[8]": "[16]", "'blocks': 1": "'blocks': 2"}
    options = OPTIONS.replace(change, new.get(change, change))
    overrides = ["steps=1", f"start={model}", f"denoiser.options={options}"]
    if change == "parameterization":
        overrides.append("denoiser.parameterization=eps")
    with pytest.raises(TrilemmaError, match=message) as caught:
        train(read_recipe(tiny_recipe, overrides), tmp_path / "second")
    said = str(caught.value)
    assert "\n" not in said
    assert ";" in said
    assert not (tmp_path / "second").exists()


def test_a_model_without_classes_does_not_start_one_with(tiny_recipe, tmp_path):
    plain = OPTIONS.replace("'classes': 10", "'classes': 0")
    model = train(read_recipe(tiny_recipe, ["steps=1", f"denoiser.options={plain}"]), tmp_path / "a").model
    with pytest.raises(TrilemmaError, match=r"has no classes and this network has 10; set .*classes = 0"):
        train(read_recipe(tiny_recipe, ["steps=1", f"start={model}"]), tmp_path / "b")
    cured = ["steps=1", f"start={model}", f"denoiser.options={plain}"]
    assert train(read_recipe(tiny_recipe, cured), tmp_path / "b").model.is_dir()


@pytest.mark.parametrize("start", ["no-such-model", "./nowhere", "/"])
def test_no_model_is_refused(tiny_recipe, tmp_path, start):
    with pytest.raises(TrilemmaError) as caught:
        train(read_recipe(tiny_recipe, ["steps=1", f"start={start}"]), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_energy_begins_with_the_network_that_it_is_made_of(tiny_recipe, tmp_path, model):
    energy = [
        *STILL, f"start={model}", "denoiser.spec=energy-of", "denoiser.parameterization=eps",
        f"denoiser.options={OPTIONS[:-1]}, 'network': 'unet'}}",
    ]  # fmt: skip
    inner = weights(train(read_recipe(tiny_recipe, energy), tmp_path / "energy").model)
    wanted = weights(model)
    assert {key.removeprefix("network.") for key in inner} == set(wanted)
    for key, tensor in wanted.items():
        torch.testing.assert_close(inner[f"network.{key}"], tensor, rtol=1e-6, atol=1e-8)


def test_a_network_that_draws_begins_with_one_that_does_not(tiny_recipe, tmp_path, model):
    drawing = [
        *STILL, f"start={model}", f"denoiser.options={OPTIONS[:-1]}, 'latent': 4}}",
        "objective.spec=ddgan:steps=2,width=4",
    ]  # fmt: skip
    made = train(read_recipe(tiny_recipe, drawing), tmp_path / "drawing").model
    found, wanted = weights(made), weights(model)
    further = set(found) - set(wanted)
    assert further
    assert all(key.startswith("latent_embedding.") for key in further)
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-8)
    # Until it learns to hear them, it answers as the model does, whatever it draws.
    before, after = trilemma.load(model), trilemma.load(made)
    z, t = torch.randn(3, *before.shape), torch.full((3,), 0.5)
    label, latent = torch.arange(3), torch.randn(3, 4)
    torch.testing.assert_close(
        after(z, t, **{"class": label, "latent": latent}), before(z, t, **{"class": label})
    )
