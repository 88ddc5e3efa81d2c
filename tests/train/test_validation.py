"""The loss on images that are held out: which those are, its value, and that it changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import trilemma
from trilemma import lookup
from trilemma.errors import DataError, TrilemmaError, UsageError
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.interfaces.held_out import held_out
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import MODEL
from trilemma.models.card import read_card
from trilemma.numerics.step_keys import step_generator
from trilemma.train.examples import Reader
from trilemma.train.precision import Precision
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train
from trilemma.train.validation import validation_losses

CPU = torch.device("cpu")


def loss_on(network, data, objective, seed: int, batch: int, most: int) -> float:
    """The loss of a network on a data set."""
    reader, updates = Reader(data, network, CPU), objective.updates()
    found = validation_losses(
        {MODEL: network}, updates, objective, reader, seed, batch, most, Precision("no", CPU), CPU
    )
    return found["validation_loss"]


def numbered(count: int, copies: int = 1) -> InMemoryDataset:
    """A set whose image i is the level i mod count."""
    images = torch.arange(count, dtype=torch.uint8).repeat(copies).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    data = InMemoryDataset(images.contiguous(), torch.zeros(count * copies, dtype=torch.int64), ())
    data.copies = copies
    return data


@pytest.mark.parametrize("copies", [1, 2, 10])
@pytest.mark.parametrize(
    ("count", "fraction", "out"), [(30, 0.1, 3), (7, 0.5, 4), (3, 0.01, 1), (200, 0.1, 20)]
)
def test_no_view_of_a_held_out_image_is_trained_on(copies, count, fraction, out):
    data = numbered(count, copies)
    rest, chosen = held_out(data, fraction, seed=0)
    levels = [set(part.images.flatten().tolist()) for part in (rest, chosen)]
    assert len(chosen) == out
    assert len(rest) == (count - out) * copies
    assert not levels[0] & levels[1]
    assert levels[0] | levels[1] == set(range(count))
    again = held_out(data, fraction, seed=0)[1].images
    assert torch.equal(again, chosen.images)


def test_which_are_held_out_depends_on_the_seed_and_is_spread():
    data = numbered(200)
    chosen = [set(held_out(data, 0.1, seed)[1].images.flatten().tolist()) for seed in range(20)]
    assert len(set(map(frozenset, chosen))) == 20
    assert len(set.union(*chosen)) > 150


def test_one_image_cannot_be_divided():
    with pytest.raises(DataError, match="cannot be divided"):
        held_out(numbered(1), 0.5, 0)


class MeanOfData(Objective):
    """The mean level of the batch plus one keyed draw."""

    def loss(self, network, denoiser, x0, cond, generator):
        return x0.double().mean() + torch.randn((), generator=generator, dtype=torch.float64)


def test_the_loss_is_the_mean_over_images_with_the_same_draws():
    """10 images in batches of 4: the last, smaller batch counts by its images."""
    data = numbered(10)
    process = lookup.process("vp:T=50")
    network = lookup.denoiser("unet", process=process, shape=(1, 2, 2), channels=[8], blocks=1, groups=4)
    state = torch.get_rng_state()
    arguments = network, data, MeanOfData(), 3, 4
    found = loss_on(*arguments, 1000)
    draws = [float(torch.randn((), generator=step_generator(3, k, 7), dtype=torch.float64)) for k in range(3)]
    x0 = torch.arange(10, dtype=torch.float64) * (2 / 255) - 1
    expected = float(x0.mean()) + (4 * draws[0] + 4 * draws[1] + 2 * draws[2]) / 10
    assert found == pytest.approx(expected, abs=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    few = loss_on(*arguments, 4)
    assert few == pytest.approx(float(x0[:4].mean()) + draws[0], abs=1e-6)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def measured(folder: Path) -> dict[int, float]:
    return {line["step"]: line["validation_loss"] for line in lines(folder) if "validation_loss" in line}


def test_it_is_logged_and_changes_no_weight(tiny_recipe, tmp_path):
    """A data set of its own, measured often or never; and the part held out, measured at other steps."""
    with_set = [
        f"validation.dataset={json.dumps(read_recipe(tiny_recipe).dataset.spec)}",
        "validation.every=5",
    ]
    plain = train(read_recipe(tiny_recipe), tmp_path / "plain")
    watched = train(read_recipe(tiny_recipe, with_set), tmp_path / "watched")
    assert list(measured(tmp_path / "watched")) == [5, 10, 15, 20, 24]
    assert watched.last["validation_loss"] == measured(tmp_path / "watched")[24]
    part = ["validation.fraction=0.2"]
    for name, every in (("often", 3), ("once", 100)):
        train(read_recipe(tiny_recipe, [*part, f"validation.every={every}"]), tmp_path / name)
    found = {
        name: load_file(tmp_path / name / "model" / "weights.safetensors")
        for name in ("plain", "watched", "often", "once")
    }
    for first, second, same in (
        ("plain", "watched", True),
        ("often", "once", True),
        ("plain", "often", False),
    ):
        equal = all(torch.equal(tensor, found[second][key]) for key, tensor in found[first].items())
        assert equal is same
    assert measured(tmp_path / "often")[24] == measured(tmp_path / "once")[24]
    losses = list(measured(tmp_path / "often").values())
    assert len(set(losses)) == len(losses)
    assert read_card(tmp_path / "often" / "model")["provenance"]["held_out"] == 0.2
    assert plain.last.keys() == watched.last.keys() - {"validation_loss"}


def test_it_is_the_loss_of_the_averaged_weights(tiny_recipe, tmp_path):
    """What the log says at the end is what the written model gives on the images held out."""
    recipe = read_recipe(tiny_recipe, ["steps=4", "validation.fraction=0.2"])
    result = train(recipe, tmp_path / "run")
    _, part = held_out(lookup.dataset(recipe.dataset.spec), 0.2, recipe.seed)
    objective, model = lookup.objective(recipe.objective.spec), trilemma.load(result.model)
    again = loss_on(model, part, objective, recipe.seed, 8, 1000)
    assert measured(tmp_path / "run")[4] == pytest.approx(again, rel=1e-6)


def test_the_part_belongs_to_the_run(tiny_recipe):
    first = read_recipe(tiny_recipe).fingerprint()
    assert read_recipe(tiny_recipe, ["validation.dataset=mnist", "validation.every=7"]).fingerprint() == first
    parts = {read_recipe(tiny_recipe, [f"validation.fraction={f}"]).fingerprint() for f in (0.1, 0.2)}
    assert len(parts | {first}) == 3


def test_a_resumed_run_logs_each_measurement_once(tiny_recipe, tmp_path, monkeypatch):
    from trilemma.train import trainer

    recipe = read_recipe(tiny_recipe, ["validation.fraction=0.2", "validation.every=3"])
    train(recipe, tmp_path / "unbroken")
    original = trainer._Run._step

    def interrupted(self, step):
        if step == 11:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(trainer._Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "broken")
    monkeypatch.setattr(trainer._Run, "_step", original)
    train(recipe, tmp_path / "broken")
    assert [line["step"] for line in lines(tmp_path / "broken")] == [
        line["step"] for line in lines(tmp_path / "unbroken")
    ]
    assert measured(tmp_path / "broken") == pytest.approx(measured(tmp_path / "unbroken"), rel=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["validation.fraction=0.6"], "validation.fraction = 0.6 is out of range"),
        (["validation.fraction=0.1", "validation.dataset=mnist"], "0 beside validation.dataset"),
        (["validation.dataset=digits"], "choose one like it"),
        (["validation.fraction=0.5", "batch_size=24"], "batch_size = 24 exceeds the 20 examples"),
    ],
)
def test_impossible_ones_are_refused(tiny_recipe, tmp_path, overrides, message):
    with pytest.raises(TrilemmaError, match=message) as caught:
        train(read_recipe(tiny_recipe, overrides), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


FLAT = """
steps = 2
batch_size = 4
tensorboard = false
dataset = {{ spec = "images:root='{root}',flip=true" }}
process = {{ spec = "vp:T=50" }}
objective = {{ spec = "simple" }}
denoiser = {{ options = {{ channels = [8], blocks = 1, groups = 4 }} }}
validation = {{ fraction = 0.3 }}
"""


def test_images_without_classes_train_a_network_without(tmp_path):
    (tmp_path / "flat").mkdir()
    for k in range(6):
        Image.new("RGB", (8, 8), (40 * k, 9, 9)).save(tmp_path / "flat" / f"{k}.png")
    path = tmp_path / "recipe.toml"
    path.write_text(FLAT.format(root=tmp_path / "flat"))
    result = train(read_recipe(path), tmp_path / "run")
    assert read_card(result.model)["data"]["classes"] == []
    assert trilemma.sample(trilemma.load(result.model), 2, steps=2).samples.shape == (2, 3, 8, 8)
    with pytest.raises(UsageError, match=r"has 3 classes and the data set 0; set .*classes=0"):
        train(read_recipe(path, ["denoiser.options.classes=3"]), tmp_path / "other")
