"""A run that is killed at any moment ends with the weights of one that never was, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trilemma.errors import ModelError
from trilemma.train.checkpoint import list_checkpoints
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

GRIDS = ["samples.every=3", "samples.n=2", "samples.steps=2", "log_every=5"]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    final = list_checkpoints(folder / "checkpoints")[-1]
    return {**load_file(final / "state.safetensors"), **load_file(folder / "model" / "weights.safetensors")}


def assert_same_run(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different
    assert logged(first) == logged(second)
    drawn = [sorted(path.name for path in (folder / "samples").iterdir()) for folder in (first, second)]
    assert drawn[0] == drawn[1]


def logged(folder: Path) -> list[dict[str, float]]:
    """The lines of the log, but for the speed."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "processes", "runs"), [("digits", 1, 2), ("digits", 2, 3), ("gan", 2, 2), ("classifier", 2, 1)]
)
def test_sigkill_at_random_moments_changes_nothing(recipe, processes, runs):
    """A few of the kills of the campaign: with dropout and grids, of two networks, and with running statistics."""
    campaign = Path(__file__).parents[2] / "benchmarks" / "kill_campaign.py"
    asked = ["--recipe", recipe, "--kills", str(runs), "--processes", str(processes), "--seed", "5"]
    ended = subprocess.run(
        [sys.executable, str(campaign), *asked],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{runs} of {runs} bit-identical" in ended.stdout


def test_resume_from_each_checkpoint(tiny_recipe, tmp_path, one_thread, monkeypatch):
    from trilemma.train import trainer

    recipe = read_recipe(tiny_recipe, GRIDS)
    train(recipe, tmp_path / "unbroken")
    original = trainer._Run._step
    for stop in (3, 13, 23):

        def interrupted(self, step, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            return original(self, step)

        monkeypatch.setattr(trainer._Run, "_step", interrupted)
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder)
        monkeypatch.setattr(trainer._Run, "_step", original)
        train(recipe, folder)
        assert_same_run(tmp_path / "unbroken", folder)


def test_another_recipe_does_not_resume(tiny_recipe, tmp_path):
    train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "run")
    with pytest.raises(ModelError, match="another recipe"):
        train(read_recipe(tiny_recipe, ["steps=8"]), tmp_path / "run")


def test_a_damaged_checkpoint_is_named(tiny_recipe, tmp_path):
    train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "run")
    state = list_checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "run")


def test_only_the_newest_checkpoints_are_kept(tiny_recipe, tmp_path):
    train(read_recipe(tiny_recipe), tmp_path / "run")
    names = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["step-000000020", "step-000000024"]


def test_a_full_disk_leaves_no_checkpoint_behind(tiny_recipe, tmp_path, monkeypatch):
    from trilemma.train import checkpoint

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ModelError, match="No space left on device"):
        train(read_recipe(tiny_recipe), tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
