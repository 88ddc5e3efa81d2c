"""The script that goes from photographs to a grid, killed and resumed on the way, with a budget of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_hour.py"


def test_from_photographs_to_a_grid_in_four_commands(tmp_path):
    chance = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "album" / label).mkdir(parents=True)
        for k in range(60):
            pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "album" / label / f"{k}.jpg")
    ended = subprocess.run(
        [
            *(
                sys.executable,
                SCRIPT,
                "--images",
                tmp_path / "album",
                "--count",
                "100",
                "--layout",
                "classes",
            ),
            *("--minutes", "0.1", "--threads", "1", "--out", tmp_path / "hour"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    commands = json.loads((tmp_path / "hour" / "record.json").read_text())["commands"]
    assert [row["command"].split()[0] for row in commands] == [
        "new-recipe",
        "train",
        "train",
        "train",
        "sample",
    ]
    assert [row["exit code"] for row in commands] == [0, -9, 130, 0, 0]
    assert "100 images, colour, 2 classes" in commands[0]["said"]
    assert "go on with: trilemma train recipe.toml" in commands[2]["said"]
    log = (tmp_path / "hour" / "runs" / "photos" / "log.jsonl").read_text().splitlines()
    trained = [line["step"] for line in map(json.loads, log) if "loss" in line]
    assert trained == sorted(set(trained))
    assert any("validation_loss" in line for line in map(json.loads, log))
    with Image.open(tmp_path / "hour" / "samples.png") as grid:
        assert grid.mode == "RGB"
        assert len(grid.getcolors(1 << 20)) > 100
