"""The results table and its goals, on numbers made up for the purpose."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["quality"] = module
    spec.loader.exec_module(module)
    return module


def metrics(frechet: float, recall: float = 0.7, agreement: float = 0.98) -> dict[str, float]:
    return {"frechet": frechet, "precision": 0.8, "recall": recall, "class-agreement": agreement}


@pytest.fixture
def results(quality: ModuleType) -> dict[str, Any]:
    """Results that meet every goal: strided DDPM is at 2, DDIM at 0.3, noise at 100, real images at 0.07."""
    rows = []
    for row in quality.configurations(10_000, 2_000, 1.0):
        distance = 100.0 if row.untrained else 2.0 if "strided" in row.title else 0.3
        speed = {"nfe": row.steps * (2 if row.guidance else 1), "images_per_second": 40.0}
        kept = {**vars(row), "metrics": metrics(distance), "threads": 2, "backend": "native"}
        rows.append({**kept, **speed})
    images = {"frechet": 60_000, "precision": 10_000, "recall": 10_000, "class-agreement": 0}
    return {
        "model": "mnist",
        "weights": "0123456789abcdef",
        "network_dtype": "float32",
        "compiled": True,
        "seed": 0,
        "clip": 1.0,
        "features": "pixels",
        "reference": {"split": "train", "images": images},
        "baseline": {"split": "test", "images": 10_000, "metrics": metrics(0.07)},
        "rows": rows,
    }


def row(results: dict[str, Any], title: str, steps: int, n: int = 10_000) -> dict[str, Any]:
    return next(r for r in results["rows"] if (r["title"], r["steps"], r["n"]) == (title, steps, n))


def check(quality: ModuleType, results: dict[str, Any], folder: Path) -> int:
    (folder / "quality.json").write_text(json.dumps(results))
    return quality.main(["--check", "--out", str(folder)])


def test_the_check_passes_where_every_goal_is_met(
    quality: ModuleType, results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(quality, results, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.startswith("ok ") for line in lines)


@pytest.mark.parametrize(
    ("title", "steps", "name", "value"),
    [
        ("DDIM, untrained U-Net", 50, "frechet", 5.9),
        ("DDIM", 50, "frechet", 0.36),
        ("DDIM", 50, "recall", 0.59),
        ("DDIM, guidance scale 2", 50, "class-agreement", 0.969),
        ("strided DDPM, small variance", 10, "frechet", 0.29),
        ("strided DDPM, large variance", 20, "frechet", 0.29),
        ("strided DDPM, small variance", 50, "frechet", 0.29),
    ],
)
def test_one_number_out_of_bounds_fails_the_check_and_names_itself(
    quality: ModuleType,
    results: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    title: str,
    steps: int,
    name: str,
    value: float,
) -> None:
    row(results, title, steps)["metrics"][name] = value
    assert check(quality, results, tmp_path) == 1
    assert sum(line.startswith("FAIL") for line in capsys.readouterr().out.splitlines()) == 1


def test_rows_of_fewer_samples_count_for_no_goal(
    quality: ModuleType, results: dict[str, Any], tmp_path: Path
) -> None:
    row(results, "DDIM", 50, 2_000)["metrics"] = metrics(50.0, recall=0.0)
    assert check(quality, results, tmp_path) == 0


def test_the_table_has_a_line_for_every_row_and_says_where_n_differs(
    quality: ModuleType, results: dict[str, Any]
) -> None:
    lines = quality.table(results).splitlines()
    body = [line for line in lines[2:] if line.startswith("|")]
    assert len(body) == len(results["rows"]) + 1  # and the real images
    assert [line for line in body if "n = 2,000" in line] == body[-5:]
    assert all(line.count("|") == lines[0].count("|") for line in body)


def test_only_what_lies_between_the_markers_is_replaced(quality: ModuleType) -> None:
    text = f"before\n{quality.BEGIN}\nold\n{quality.END}\nafter\n"
    assert quality.replace_block(text, "new") == f"before\n{quality.BEGIN}\nnew\n{quality.END}\nafter\n"
    with pytest.raises(SystemExit, match="put the two lines"):
        quality.replace_block("no markers", "new")
