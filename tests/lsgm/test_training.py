"""A run of `lsgm`: both networks learn, are averaged and written, and a stopped run ends with the same bits."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.models.card import read_card
from trilemma.train.recipe import Recipe, make_recipe
from trilemma.train.trainer import TrainingResult, train


def recipe(**changes: Any) -> Recipe:
    table: dict[str, Any] = {
        "name": "small",
        "steps": 6,
        "batch_size": 16,
        "checkpoint_every": 2,
        "keep": 9,
        "ema": 0.5,
        "ema_warmup": 1,
        "log_every": 2,
        "tensorboard": False,
        "dataset": {"spec": "digits:split=train"},
        "process": {"spec": "vp-geometric"},
        "latent": {"spec": "grey-levels", "options": {"network": "small-coder", "channels": 2, "width": 8}},
        "denoiser": {
            "spec": "lsgm",
            "parameterization": "eps",
            "options": {"channels": [8], "blocks": 1, "groups": 4, "classes": 10, "logit": -2.0},
        },
        "objective": {"spec": "lsgm:anneal=4,drop=0.1"},
        "optimizer": {"lr": 1e-2, "warmup": 1},
        "validation": {"dataset": "digits:split=test", "every": 6, "n": 32},
    }
    return make_recipe({key: value for key, value in (table | changes).items() if value is not None})


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    model = trilemma.load(result.model)
    return model.state_dict() | {f"codes.{k}": v for k, v in model.view.autoencoder.state_dict().items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(recipe(), tmp_path_factory.mktemp("lsgm") / "run")


def test_it_writes_a_latent_model_and_its_autoencoder(run: TrainingResult) -> None:
    card, own = read_card(run.model), read_card(run.model.parent / "autoencoder")
    assert card["latent"] == {"autoencoder": "autoencoder", "sha256": own["weights"]["sha256"]}
    assert own["model"] == {"name": "small-codes", "summary": "the codes of small", "kind": "autoencoder"}
    model = trilemma.load(run.model)
    assert (model.shape, model.image_shape) == ((2, 4, 4), (1, 8, 8))
    drawn = trilemma.sample(model, 3, sampler="ddim", steps=3, cond={"class": 7}, guidance="cfg:scale=2")
    assert drawn.samples.shape == (3, 1, 8, 8)
    start = trilemma.sample(model, 3, start=drawn.samples, strength=0.5, steps=4)
    assert start.samples.shape == (3, 1, 8, 8)
    assert {"validation_loss", "validation_reconstruction", "loss", "divergence"} <= run.last.keys()


def test_every_weight_of_both_networks_moves(run: TrainingResult, tmp_path) -> None:
    first = train(recipe(steps=1, optimizer={"lr": 1e-9, "warmup": 0}), tmp_path / "first")
    before, after = weights(first), weights(run)
    unmoved = {name for name in before if torch.allclose(before[name], after[name], rtol=0, atol=1e-7)}
    # Codes that are near N(0, I) by the loss are not normalised.
    assert {name.rpartition(".")[2] for name in unmoved} == {"code_mean", "code_deviation"}


def test_the_written_autoencoder_is_the_average(run: TrainingResult) -> None:
    from safetensors.torch import load_file

    newest = run.model.parent / "checkpoints" / "step-000000006" / "state.safetensors"
    state, written = load_file(newest), trilemma.load(run.model).view.autoencoder.state_dict()
    for name, tensor in written.items():
        assert torch.equal(tensor, state[f"ema.autoencoder/{name}"])
    assert any(not torch.equal(tensor, state[f"part.autoencoder/{name}"]) for name, tensor in written.items())


def test_a_run_that_was_stopped_ends_with_the_same_bits(run: TrainingResult, tmp_path) -> None:
    shutil.copytree(run.model.parent, tmp_path / "run")
    for folder in sorted((tmp_path / "run" / "checkpoints").iterdir())[2:]:
        shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "run" / "model")
    again = train(recipe(), tmp_path / "run")
    first, second = weights(run), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_updates_learn_apart(tmp_path) -> None:
    both = recipe(
        objective={"spec": "lsgm:separate=true,weighting=drop-sigma2"},
        optimizer={"lr": 1e-2, "warmup": 1, "prior": {"lr": 1e-3}},
    )
    result = train(both, tmp_path / "run")
    assert {"autoencoder_loss", "prior_loss", "autoencoder_divergence"} <= result.last.keys()


def test_it_goes_on_from_a_trained_autoencoder(run: TrainingResult, tmp_path) -> None:
    trained = run.model.parent / "autoencoder"
    result = train(recipe(latent={"autoencoder": str(trained)}), tmp_path / "run")
    card = read_card(result.model.parent / "autoencoder")
    assert card["provenance"]["start_sha256"] == read_card(trained)["weights"]["sha256"]
    assert card["weights"]["sha256"] != card["provenance"]["start_sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"spec": "simple"}}, "trains no autoencoder"),
        ({"latent": None}, "add a table \\[latent\\]"),
        ({"latent": {"spec": "small-coder"}}, "no likelihood"),
        ({"latent": {"spec": "grey-levels", "options": {"network": "small-coder", "chanels": 2}}}, "chanels"),
        ({"process": {"spec": "sub-vp"}}, "variance-preserving"),
        ({"objective": {"spec": "lsgm:weighting=unwieghted"}}, "weighting"),
        ({"objective": {"spec": "lsgm:kl=-1.0"}}, "kl=-1.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path, one_line) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train(recipe(**changes), tmp_path / "run")
    one_line(caught.value)
    assert not (tmp_path / "run").exists()
