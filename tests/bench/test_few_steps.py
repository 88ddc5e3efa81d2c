"""The page of models of few steps, from models small enough for a test and from numbers made up for the purpose."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RECIPE: dict[str, Any] = {
    "steps": 30,
    "batch_size": 32,
    "tensorboard": False,
    "dataset": {"spec": "mixture2d:n=400"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {"spec": "mlp", "options": {"width": 16, "classes": 8}},
    "optimizer": {"lr": 1e-2, "warmup": 2},
    "objective": {"spec": "simple"},
    "evaluation": {"features": "points-features"},
}


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which finds its neighbours as when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("few_steps", "sampler_tables", "quality"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("few_steps")


def test_models_given_make_the_page_and_its_pictures(
    few_steps: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    made = {}
    for name, steps in (("teacher", None), ("mnist-4", 4), ("other", 2)):
        sampling = {} if steps is None else {"sampler": "ddim", "steps": steps}
        recipe = make_recipe({**RECIPE, "name": name, "sampling": sampling})
        made[name] = str(train(recipe, tmp_path / name).model)
    out = tmp_path / "out"
    command = ["--teacher", made["teacher"], "--model", made["mnist-4"], "--model", made["other"], "-n", "60"]
    command += ["--n-speed", "20"]
    command += ["--sampler", "ddim", "--sampler", "unipc", "--nfe", "2", "--nfe", "50", "--out", str(out)]
    assert few_steps.main(command) == 0
    page = (out / "few-steps.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| `", "| **"))]
    # Fewest evaluations first.
    assert [int(row.split("|")[4]) for row in rows] == [2, 2, 2, 4, 50, 50]
    assert sum("**`mnist-4`**" in row and "| 4 | 4 |" in row for row in rows) == 1
    assert sum("| `teacher` | `unipc` |" in row for row in rows) == 2
    assert all(row.split("|")[7].strip().endswith("%") for row in rows), "each has its recall"
    assert all(float(row.split("|")[9]) > 0 for row in rows), "each has its images/s"
    for picture in ("few-steps-nfe.png", "few-steps-triangle.png"):
        assert picture in page
        assert (out / picture).read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr().out
    assert "Fréchet distance of mnist-4, against 1 × DDIM at 50" in said
    assert "recall of mnist-4" in said
    # It goes on where it stopped, and tabulates again.
    stores, before = [out / "few-steps.jsonl", out / "few-steps-speed.jsonl"], page
    cells = [store.read_text() for store in stores]
    assert few_steps.main(command) == 0
    assert [store.read_text() for store in stores] == cells
    assert few_steps.main(["--table", "--out", str(out)]) == 0
    assert (out / "few-steps.md").read_text() == before


def test_models_that_are_not_installed_are_left_out(
    few_steps: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert few_steps.installed(["mnist", "no-such-model"]) == ["mnist"]
    assert "left out: no-such-model" in capsys.readouterr().err


def cell(name: str, frechet: float, recall: float, speed: float, budget: int, own: bool) -> dict[str, Any]:
    key = {"model": {"name": name, "sha256": "0"}, "sampler": "ddim:eta=0.0", "steps": budget}
    key |= {"n": 100, "seed": 0, "network_dtype": "float32", "features": "f"}
    measured = {"metrics": {"frechet": frechet, "recall": recall}, "images_per_second": speed}
    return {"key": key, "budget": budget, "nfe": budget, "reason": None, **measured} | (
        {"own": True} if own else {}
    )


def test_images_per_second_are_those_of_the_same_weights(few_steps: ModuleType) -> None:
    """A student and its teacher may run the same sampler with the same steps."""
    quality = [cell("mnist", 0.1, 0.8, 0.0, 4, False), cell("student", 0.1, 0.8, 0.0, 4, True)]
    speed = [cell("student", 0.1, 0.8, 7.0, 4, True), cell("mnist", 0.1, 0.8, 5.0, 4, False)]
    for record in (*quality, *speed):
        record["key"]["model"]["sha256"] = record["key"]["model"]["name"]
    measured = few_steps.sampler_tables.with_speed(quality, speed)
    assert [record["images_per_second"] for record in measured] == [5.0, 7.0]


def test_goals_compare_with_the_teachers_ddim(few_steps: ModuleType) -> None:
    records = [
        cell("mnist", 0.1, 0.85, 20.0, 50, False),
        cell("mnist", 0.2, 0.85, 100.0, 10, False),
        cell("mnist-4", 0.09, 0.82, 250.0, 4, True),
        cell("mnist-1", 0.21, 0.79, 1000.0, 1, True),
        cell("ddgan-mnist", 0.4, 0.75, 150.0, 4, True),
    ]
    found = {goal.text: goal.met for goal in few_steps.goals(records)}
    assert found == {
        "Fréchet distance of mnist-4, against 1 × DDIM at 50": True,
        "recall of mnist-4": True,
        "images/s of mnist-4, times those of DDIM at 50": True,
        "Fréchet distance of mnist-1, against 1 × DDIM at 10": False,
        "recall of mnist-1": False,
        "images/s of mnist-1, times those of DDIM at 10": True,
        "Fréchet distance of ddgan-mnist, against 5 × DDIM at 50": True,
        "recall of ddgan-mnist": True,
        "images/s of ddgan-mnist, times those of DDIM at 50": False,
    }


def test_records_that_do_not_compare_are_refused(few_steps: ModuleType, tmp_path: Path) -> None:
    tables = few_steps.sampler_tables
    records = [cell("mnist", 0.1, 0.8, 20.0, 4, False), cell("student", 0.1, 0.8, 20.0, 1, True)]
    store = tmp_path / "cells.jsonl"
    store.write_text("\n".join(map(json.dumps, records)))
    assert len(tables.read(store)) == 2
    for other in (
        cell("another", 0.1, 0.8, 20.0, 8, False),
        {**records[1], "key": {**records[1]["key"], "n": 7}},
    ):
        store.write_text("\n".join(map(json.dumps, [*records, other])))
        with pytest.raises(SystemExit, match="which do not compare"):
            tables.read(store)
