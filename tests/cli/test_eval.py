"""`trilemma eval`: pure JSON or a table, with what the model's card advises."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner, Result

import trilemma
from trilemma.cli.eval import command
from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError
from trilemma.evaluate import Evaluator, Observation, evaluation, evaluator
from trilemma.evaluate.splits import RULE
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.metrics.agreement import ClassAgreement
from trilemma_plugins.metrics.frechet import FrechetDistance

app = typer.Typer()
app.command()(command)


class Pixels:
    """A feature network whose features are two pixels."""

    identity = "pixels"

    def takes(self, shape: tuple[int, ...]) -> bool:
        return tuple(shape) == (1, 4, 4)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        flat = images.flatten(1)
        return Observation(flat[:, :2], torch.stack([-flat[:, 0], flat[:, 0]], 1), labels)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> GaussianDenoiser:
    """A network with the card of a bundled model, and a look-up that knows what the card names."""
    made = GaussianDenoiser(
        DiscreteVP(schedule="cosine", T=1000), [-0.5, 0.5, 0.0], 0.04, "v", (1, 4, 4)
    ).eval()
    made.card = {
        "model": {"name": "gaussian"},
        "process": {"spec": "vp"},
        "weights": {"sha256": "0" * 64},
        "evaluation": {"dataset": "levels", "features": "pixels"},
    }
    metrics = {"frechet": FrechetDistance(), "class-agreement": ClassAgreement(), "pixels": Pixels()}
    images = torch.arange(0, 256, dtype=torch.uint8).view(16, 1, 4, 4)
    split = InMemoryDataset(images, torch.arange(16) % 2, ("dark", "light"))
    asked: list[tuple[str, str]] = []

    def build(kind: str, spec: str, **options: str) -> tuple[Any, str]:
        asked.append((kind, spec))
        if kind == "dataset":
            return split, spec
        if spec not in metrics:
            raise PluginUnavailable(f"unknown metric {spec!r}")
        return metrics[spec], spec

    made.asked = asked
    made.by_default = False
    monkeypatch.setattr(
        evaluator,
        "lookup",
        SimpleNamespace(
            build=build,
            describe=lambda kind, m: type(m).__name__,
        ),
    )
    default = SimpleNamespace(default_features=lambda: ["pixels"] if made.by_default else [])
    monkeypatch.setattr(evaluator, "building", default)
    monkeypatch.setattr(evaluation, "load", lambda name, **options: made)
    monkeypatch.setattr(
        evaluation,
        "build_alike",
        lambda model, card, seed: GaussianDenoiser(made.process, 0.0, 1.0, "v", (1, 4, 4)),
    )
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        app, ["mnist", "--metric", "frechet", "--metric", "class-agreement", *arguments]
    )


def test_json_is_all_there_is_on_stdout(model: GaussianDenoiser) -> None:
    result = run("--steps", "5", "-n", "32", "--batch-size", "10", "--seed", "4", "--json")
    assert result.exit_code == 0, result.exception
    record = json.loads(result.stdout)
    assert record["model"] == {"name": "gaussian", "sha256": "0" * 64}
    assert (record["n"], record["steps"], record["nfe"], record["seed"]) == (32, 5, 5, 4)
    assert (record["dataset"], record["features"], record["untrained"]) == ("levels", "pixels", False)
    assert record["reference"] == {"split": "train", "images": {"frechet": 16, "class-agreement": 0}}
    assert set(record["metrics"]) == set(record["baseline"]["metrics"]) == {"frechet", "class-agreement"}
    assert record["baseline"]["metrics"]["frechet"] == pytest.approx(0)  # the same images here
    assert record["images_per_second"] > 0


def test_the_table_shows_every_metric_and_what_it_was_measured_against(model: GaussianDenoiser) -> None:
    result = run("--steps", "2", "-n", "8")
    assert result.exit_code == 0, result.exception
    for part in (
        "frechet",
        "class-agreement",
        "gaussian: 8 samples",
        "16 test images",
        "NFE 2 a sample",
        "pixels",
    ):
        assert part in result.stdout


def test_options_come_before_the_card(model: GaussianDenoiser) -> None:
    record = json.loads(
        run("--steps", "1", "-n", "4", "--dataset", "other", "--no-baseline", "--json").stdout
    )
    assert record["dataset"] == "other"
    assert record["baseline"] is None
    assert ("dataset", "other") in model.asked
    assert ("dataset", "levels") not in model.asked


def test_an_untrained_network_is_said_to_be_one(
    model: GaussianDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("trilemma.evaluate.untrained", lambda network, seed: seen.append(seed) or network)
    record = json.loads(run("--steps", "1", "-n", "4", "--untrained", "--seed", "9", "--json").stdout)
    assert record["untrained"] is True
    assert seen == [9]


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        (["--reference", "validation"], UsageError, "give train or test"),
        (["--dtype", "int8"], UsageError, "give float32 or bfloat16"),
        (["-n", "0"], UsageError, "n=0 is not a number of samples"),
        (["--steps", "0"], UsageError, "steps=0"),
        (["--metric", "nonsense"], PluginUnavailable, "unknown metric 'nonsense'"),
        (["--metric", "pixels"], UsageError, "is a feature network, not a metric"),
        (["-n", "1", "--steps", "1"], TrilemmaError, "at least 2 images, got 1"),
    ],
)
def test_bad_input_is_one_error_of_one_line(
    model: GaussianDenoiser, arguments: list[str], error: type[TrilemmaError], reason: str
) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert reason in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.slow
def test_the_bundled_model_end_to_end(data_root: object) -> None:
    try:
        trilemma.load("mnist")
    except TrilemmaError as missing:
        pytest.skip(f"no bundled model here: {missing}")
    result = CliRunner().invoke(app, ["mnist", "--steps", "10", "-n", "50", "--no-baseline", "--json"])
    assert result.exit_code == 0, result.exception
    record = json.loads(result.stdout)
    assert set(record["metrics"]) == {"frechet", "precision", "recall", "class-agreement"}
    assert record["reference"]["images"]["frechet"] == 60_000
    assert record["metrics"]["class-agreement"] > 0.8
    assert record["metrics"]["frechet"] < 20  # 50 images, so mostly bias; noise is at hundreds


@pytest.mark.parametrize(
    ("card", "arguments", "expected"),
    [
        ({"evaluation": {"dataset": "levels", "features": "pixels"}}, [], "levels"),
        (
            {"data": {"dataset": "levels:split=train"}, "evaluation": {"features": "pixels"}},
            [],
            "levels:split=train",
        ),
        ({"data": {"dataset": "a"}, "evaluation": {"dataset": "b", "features": "pixels"}}, [], "b"),
        ({"data": {"dataset": "a"}}, ["--dataset", "c", "--features", "pixels"], "c"),
    ],
)
def test_the_data_set_is_the_cards(model: GaussianDenoiser, card, arguments, expected) -> None:
    model.card = {**model.card, "evaluation": {}, **card}
    record = json.loads(run("--steps", "1", "-n", "4", "--no-baseline", "--json", *arguments).stdout)
    assert record["dataset"] == expected
    assert {spec for kind, spec in model.asked if kind == "dataset"} == {expected}


def test_the_split_is_the_cards(model: GaussianDenoiser) -> None:
    model.card["evaluation"]["reference"] = "test"
    record = json.loads(run("--steps", "1", "-n", "4", "--no-baseline", "--json").stdout)
    assert record["reference"]["split"] == "test"


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({}, "names no data set; give one"),
        ({"evaluation": {"dataset": "levels"}}, "names no feature network, and none of the default ones"),
        ({"data": {"dataset": "levels"}}, "names no feature network, and none of the default ones"),
    ],
)
def test_a_card_that_names_nothing_is_refused_before_a_sample_is_drawn(
    model, monkeypatch, card, reason
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a sample was drawn")

    monkeypatch.setattr(evaluation, "chunks_of", never)
    model.card = {key: table for key, table in model.card.items() if key != "evaluation"} | card
    result = run("--steps", "1", "-n", "4")
    assert isinstance(result.exception, UsageError)
    assert reason in str(result.exception)


@pytest.mark.parametrize("of", ["features", "data set"])
def test_samples_of_another_shape_are_refused_before_they_are_drawn(model, monkeypatch, of) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a sample was drawn")

    monkeypatch.setattr(evaluation, "chunks_of", never)
    if of == "features":
        monkeypatch.setattr(Pixels, "takes", lambda self, shape: shape == (3, 4, 4))
    else:
        model.shape = (1, 8, 8)
        monkeypatch.setattr(Pixels, "takes", lambda self, shape: shape == (1, 8, 8))
    result = run("--steps", "1", "-n", "4")
    assert isinstance(result.exception, UsageError)
    assert "shape" in str(result.exception)
    assert "4, 4)" in str(result.exception)


def test_where_the_card_names_no_features_a_default_one_that_takes_the_images_stands_in(model) -> None:
    model.card["evaluation"].pop("features")
    model.by_default = True
    record = json.loads(run("--steps", "1", "-n", "4", "--no-baseline", "--json").stdout)
    assert record["features"] == "pixels"


def test_no_default_features_stand_in_for_images_that_they_do_not_take(model, monkeypatch) -> None:
    model.card["evaluation"].pop("features")
    model.by_default = True
    monkeypatch.setattr(Pixels, "takes", lambda self, shape: False)
    result = run("--steps", "1", "-n", "4")
    assert isinstance(result.exception, UsageError)
    assert "none of the default ones takes images of shape (1, 4, 4)" in str(result.exception)


@pytest.fixture
def unsplit(model, monkeypatch) -> GaussianDenoiser:
    """The model, trained on a data set without splits."""
    whole = InMemoryDataset(
        torch.randint(0, 256, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte(),
        torch.zeros(60, dtype=torch.int64),
        ("all",),
    )
    build = evaluator.lookup.build

    def built(kind: str, spec: str, **options: str) -> tuple[Any, str]:
        if kind != "dataset":
            return build(kind, spec, **options)
        if options:
            raise UsageError("no option split")
        return whole, spec

    monkeypatch.setattr(evaluator.lookup, "build", built)
    model.card = {**model.card, "data": {"dataset": "whole"}}
    model.card["evaluation"] = {"features": "pixels"}
    return model


def test_a_data_set_without_splits_is_split_and_the_record_says_so(unsplit) -> None:
    record = json.loads(run("--steps", "1", "-n", "4", "--json").stdout)
    assert record["splits"]["rule"] == RULE
    assert record["splits"]["trained_on"] == ["train", "test"]
    assert record["reference"]["images"]["frechet"] == 54
    assert record["baseline"]["images"] == 6
    shown = " ".join(run("--steps", "1", "-n", "4").stdout.split())
    assert f"{RULE}, the rest train; the model has seen both in training" in shown


def test_too_few_images_for_the_baseline_do_not_lose_the_samples(unsplit, monkeypatch) -> None:
    monkeypatch.setattr(
        Evaluator, "baseline", property(lambda self: (_ for _ in ()).throw(TrilemmaError("too few")))
    )
    result = run("--steps", "1", "-n", "4", "--json")
    assert json.loads(result.stdout)["baseline"] is None
    assert "no figures of real images: too few" in result.stderr
