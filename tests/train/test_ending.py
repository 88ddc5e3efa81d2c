"""A run ends with an evaluation of its model, in the log and on the terminal, where the recipe asks for one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

import trilemma
from support.levels import LEVEL, Levels
from trilemma import Request
from trilemma.cli.app import main
from trilemma.errors import TrilemmaError
from trilemma.evaluate import Evaluator, evaluate
from trilemma.train import trainer
from trilemma.train.recipe import Recipe, make_recipe
from trilemma.train.trainer import train

TABLE: dict[str, Any] = {
    "steps": 4,
    "batch_size": 16,
    "seed": 3,
    "tensorboard": False,
    "dataset": {"spec": "mixture2d:n=200"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {"spec": "mlp", "options": {"width": 8, "classes": 8}},
    "objective": {"spec": "simple"},
    "sampling": {"sampler": "ddim", "steps": 3},
    "evaluation": {
        "dataset": "mixture2d:n=200",
        "features": "points-features",
        "metrics": ["frechet", "recall"],
        "n": 100,
    },
}


def recipe(**changed: Any) -> Recipe:
    made = copy.deepcopy(TABLE)
    for key, value in changed.items():
        made[key] = {**made.get(key, {}), **value} if isinstance(value, dict) else value
    return make_recipe(made)


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in found if "evaluation" in record]


@pytest.fixture
def measured(monkeypatch) -> list[Path]:
    """The models that were measured."""
    calls: list[Path] = []
    really = trainer.evaluated

    def watched(model, *rest):
        calls.append(model)
        return really(model, *rest)

    monkeypatch.setattr(trainer, "evaluated", watched)
    return calls


def test_the_line_has_the_numbers_of_trilemma_eval(tmp_path):
    result = train(recipe(), tmp_path)
    (line,) = lines(tmp_path)
    model = trilemma.load(result.model)
    expected = evaluate(Request(model, 100, batch_size=250, seed=3), Evaluator.of(model))
    assert line["step"] == 4
    assert line["evaluation_frechet"] == pytest.approx(expected["metrics"]["frechet"], rel=1e-6)
    assert line["evaluation_recall"] == expected["metrics"]["recall"]
    # The model's own sampler and steps.
    assert line["evaluation_nfe"] == expected["steps"] == 3
    assert {name: result.last[name] for name in line if name.startswith("evaluation_")} == {
        name: value for name, value in line.items() if name.startswith("evaluation_")
    }
    assert line["evaluation"]["n"] == 100
    assert "n" not in model.card["evaluation"]


def test_it_is_made_once(tmp_path, measured):
    first = train(recipe(), tmp_path)
    log = (tmp_path / "log.jsonl").read_bytes()
    again = train(recipe(), tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == log
    assert len(measured) == 1
    assert first.last["evaluation_frechet"] == again.last["evaluation_frechet"]
    # Another number of samples is another measurement, of the same run.
    train(recipe(evaluation={"n": 50}), tmp_path)
    train(recipe(sampling={"steps": 2}), tmp_path)
    assert [line["evaluation"]["n"] for line in lines(tmp_path)] == [100, 50, 100]
    assert [line["evaluation_nfe"] for line in lines(tmp_path)] == [3, 3, 2]


def test_a_run_that_was_killed_while_it_measured_goes_on_there(tmp_path, monkeypatch, measured):
    whole = train(recipe(), tmp_path / "whole")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluated", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), tmp_path / "killed")
    assert not lines(tmp_path / "killed")
    resumed = train(recipe(), tmp_path / "killed")
    (found,), (expected,) = lines(tmp_path / "killed"), lines(tmp_path / "whole")
    for line in (found, expected):
        line.pop("evaluation_images_per_second")
    assert found == expected
    weights = [trilemma.load(result.model).state_dict() for result in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_none_is_made_where_none_is_asked_for(tmp_path, measured):
    for n in ({"n": 0}, {}):
        asked = recipe(evaluation={"n": 0} | n)
        assert asked.fingerprint() == recipe().fingerprint()
    train(recipe(evaluation={"n": 0}), tmp_path)
    assert not measured
    assert not lines(tmp_path)


def test_a_failure_is_told_and_the_model_is_there(tmp_path, monkeypatch, capsys):
    def failing(*_):
        raise TrilemmaError("no space for 100 samples; free some")

    monkeypatch.setattr(trainer, "evaluated", failing)
    result = train(recipe(), tmp_path)
    assert "no evaluation: no space for 100 samples" in capsys.readouterr().err
    assert trilemma.load(result.model)
    assert not lines(tmp_path)


CLASSIFIER = {
    "steps": 2,
    "dataset": {"spec": "mixture2d:n=200"},
    "features": {"spec": "image-network"},
    "objective": {"spec": "cross-entropy"},
    "evaluation": {"n": 10},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": {"features": "mnist-features"}}, r"takes no images of shape \(2, 1, 1\)"),
        ({"evaluation": {"dataset": "digits"}}, "has images of shape"),
        ({"evaluation": {"n": -1}}, "evaluation.n = -1 is too small"),
        ({"evaluation": {"n": 1.5}}, "evaluation.n = 1.5 has the wrong type"),
        ({"evaluation": {"cond": 5}}, "evaluation.cond = 5 has the wrong type"),
        ({"evaluation": {"cond": {"levl": 1.0}}}, "unknown condition 'levl'"),
        ({"evaluation": {"cond": {"class": 3}}}, "the data set mixture2d:n=200 gives the values of class"),
    ],
)
def test_what_could_not_be_measured_is_refused_before_the_first_step(tmp_path, change, message, one_line):
    with pytest.raises(TrilemmaError, match=message) as caught:
        train(recipe(**change), tmp_path / "run")
    assert len(one_line(caught.value)) < 300
    assert not (tmp_path / "run").exists()


def test_only_a_denoiser_has_samples(tmp_path):
    with pytest.raises(TrilemmaError, match="are those of a denoiser"):
        train(make_recipe(CLASSIFIER), tmp_path / "run")


def test_a_condition_that_the_data_lack_is_given_by_the_recipe(tmp_path, register):
    register("objective", "levels", Levels)
    told = {"denoiser": {"options": {"width": 8, "classes": 8, "conditions": [LEVEL]}}}
    objective = {"spec": "levels"}
    with pytest.raises(TrilemmaError, match="'level' is missing and this model has no null"):
        train(recipe(objective=objective, **told), tmp_path / "a")
    result = train(recipe(objective=objective, evaluation={"cond": {"level": 2.5}}, **told), tmp_path / "b")
    assert len(lines(tmp_path / "b")) == 1
    # The card keeps it, so that `trilemma eval MODEL` needs no more.
    model = trilemma.load(result.model)
    record = evaluate(Request(model, 20), Evaluator.of(model))
    assert record["cond"] == "the training labels, in their proportions; level=2.5"
    assert record["metrics"]["frechet"] > 0


def test_every_stage_says_its_numbers(tmp_path, capsys):
    stages = [{"name": name, "sampling": {"steps": steps}} for name, steps in (("first", 3), ("second", 2))]
    (tmp_path / "stages.toml").write_text(tomli_w.dumps({**TABLE, "stage": stages}))
    assert (
        main(["train", str(tmp_path / "stages.toml"), "--out", str(tmp_path / "out"), "--no-progress"]) == 0
    )
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    for line, name, steps in zip(said, ("first", "second"), (3, 2), strict=True):
        (logged,) = lines(tmp_path / "out" / name)
        assert f"{name}/model: 4 steps" in line
        assert f"evaluation frechet {logged['evaluation_frechet']:.4g}" in line
        assert f"evaluation nfe {steps}" in line
