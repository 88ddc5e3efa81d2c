"""`trilemma bench samplers`: budgets, rows that cannot be run, and a run that is taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trilemma import Request, load
from trilemma.bench import samplers
from trilemma.cli.app import main
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import Evaluator, evaluate
from trilemma.registry import SamplerSpec
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP


class Heun(DDIM):
    def nfe(self, steps: int) -> int:
        return 2 * steps


class Measure:
    """Stands in for the evaluator and counts what is drawn."""

    def describe(self) -> dict[str, Any]:
        return {"dataset": "none"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    calls: list[tuple[str, int]] = []

    def evaluate(request: Request, evaluator: Any) -> dict[str, Any]:
        calls.append((type(request.sampler).__name__, request.steps))
        if request.steps == 3:
            raise TrilemmaError("no three")
        return {"nfe": request.steps, "images_per_second": 1.0, "backend": "x", "metrics": {"frechet": 1.0}}

    monkeypatch.setattr(samplers, "evaluate", evaluate)
    return calls


def run(budgets: list[int], out: Path | None = None, **conditions: Any) -> list[dict[str, Any]]:
    model = GaussianDenoiser(DiscreteVP(schedule="cosine", T=1000), [0.0], 0.04, "v", (1, 1, 1)).eval()
    wanted = samplers.Conditions(**{"n": 20, **conditions})
    evaluator: Any = Measure()
    return list(samplers.records(model, evaluator, ["ddim", "ddpm:variance=large"], budgets, wanted, out))


def test_steps_are_the_most_a_budget_pays_for() -> None:
    assert samplers.steps_within(DDIM(), 7) == 7
    assert samplers.steps_within(Heun(), 7) == 3
    with pytest.raises(UsageError, match="one step pays 2"):
        samplers.steps_within(Heun(), 1)


def test_what_cannot_be_run_is_a_row_with_its_reason(drawn: list[tuple[str, int]]) -> None:
    found = run([2, 3])
    assert [record["reason"] for record in found] == [None, None, "no three", "no three"]


def test_a_run_is_taken_up_where_it_stopped(drawn: list[tuple[str, int]], tmp_path: Path) -> None:
    out = tmp_path / "cells.jsonl"
    first = run([2], out)
    with out.open("a") as file:
        file.write('{"key": {"unfinis')
    assert run([2, 4], out)[:2] == first
    assert drawn == [("DDIM", 2), ("DDPM", 2), ("DDIM", 4), ("DDPM", 4)]
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 4
    run([2], out, seed=1)
    assert len(drawn) == 6, "another seed is another cell"


def test_only_quality_depends_on_no_threads(drawn: list[tuple[str, int]]) -> None:
    (record, _) = run([2], speed=False)
    assert record["images_per_second"] is None
    assert record["key"]["threads"] is None
    assert run([2])[0]["key"]["threads"] == torch.get_num_threads()


def test_a_file_of_something_else_is_refused(drawn: list[tuple[str, int]], tmp_path: Path) -> None:
    out = tmp_path / "other.jsonl"
    out.write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match="give another --out"):
        run([2], out)
    assert out.read_text() == '{"a": 1}\n'


def test_variants_are_measured_beside_the_defaults() -> None:
    assert {"ddim", "ddim:eta=1", "ddpm", "ddpm:variance=large"} <= set(samplers.contenders())
    assert samplers.contenders(["ddim"]) == ["ddim"]
    with pytest.raises(TypeError, match="not a tuple"):
        SamplerSpec("a", "b:c", "d", variants="eta=1")  # type: ignore[arg-type]


RECIPE: dict[str, Any] = {
    "steps": 2,
    "batch_size": 8,
    "tensorboard": False,
    "dataset": {"spec": "mixture2d:n=200"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {"spec": "mlp", "options": {"width": 8, "classes": 8}},
    "objective": {"spec": "simple:drop=0.5"},
    "evaluation": {"features": "points-features", "metrics": ["frechet"]},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A model, and two whose cards say how they are drawn."""
    folder = tmp_path_factory.mktemp("models")
    cards: list[dict[str, Any]] = [
        {},
        {"sampler": "ddim", "steps": 3},
        {"sampler": "ddpm", "steps": 2, "guidance": "cfg:scale=2"},
    ]
    made = []
    for number, card in enumerate(cards):
        recipe = make_recipe({**RECIPE, "name": f"model-{number}", "sampling": card})
        made.append(str(train(recipe, folder / str(number)).model))
    return made


def bench(models: list[str], out: Path, *more: str) -> int:
    names = ("--sampler", "ddim", "--sampler", "dpmpp-2m", "--nfe", "1", "--nfe", "2")
    arguments = ["bench", "samplers", *models, *names, "-n", "40", "--only-quality", "--no-progress"]
    return main([*arguments, "--out", str(out), *more])


def test_models_beside_are_drawn_as_their_cards_say(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cells.jsonl"
    assert bench(models, out, "--metric", "frechet", "--metric", "recall") == 0
    cells = [json.loads(line) for line in out.read_text().splitlines()]
    assert [cell["reason"] for cell in cells] == [None] * 6
    assert all({*cell["metrics"]} == {"frechet", "recall"} for cell in cells)
    own = [cell for cell in cells if cell.get("own")]
    assert [(cell["key"]["model"]["name"], cell["key"]["steps"], cell["nfe"]) for cell in own] == [
        ("model-1", 3, 3),
        # Two branches.
        ("model-2", 2, 4),
    ]
    assert own[1]["key"]["guidance"] == "cfg:scale=2"
    for cell, name in zip(own, models[1:], strict=True):
        expected = evaluate(
            Request(load(name, fused=True), 40, batch_size=250), Evaluator.of(load(models[0]))
        )
        assert cell["metrics"]["frechet"] == pytest.approx(expected["metrics"]["frechet"], rel=1e-6)
    said = capsys.readouterr().out
    assert "model-1, ddim" in said
    assert "model-2, ddpm" in said
    # All of it is there.
    before = out.read_text()
    assert bench(models, out, "--metric", "frechet", "--metric", "recall", "--json") == 0
    assert out.read_text() == before


def test_one_model_is_measured_as_before(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "cells.jsonl"
    assert bench(models[:1], out) == 0
    cells = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(cells) == 4
    assert not any("own" in cell for cell in cells)


def test_a_model_of_other_data_is_refused(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "cells.jsonl"
    assert bench([models[0], "mnist"], out) != 0
    assert not out.exists()
