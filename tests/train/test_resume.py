"""A run that is killed at any moment ends with the weights of one that never was, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trilemma.errors import ModelError
from trilemma.train.checkpoint import list_checkpoints
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

# Says before each step that it begins, and lets the killer hit inside it.
RUN = """
import sys, time, torch
from pathlib import Path
from trilemma.train import trainer
from trilemma.train.recipe import read_recipe
torch.set_num_threads(1)
step = trainer._Run._step
def announced(self, k):
    print(k, flush=True)
    time.sleep(0.005)
    return step(self, k)
trainer._Run._step = announced
trainer.train(read_recipe(sys.argv[1]), Path(sys.argv[2]))
"""


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


def run_until(recipe: Path, folder: Path, steps: int, delay: float) -> bool:
    """Starts or resumes the run, kills it `delay` seconds into its `steps`-th step; whether it ended before."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(recipe), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    for _ in range(steps):
        process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == 0


@pytest.mark.slow
def test_sigkill_at_random_times_changes_nothing(tiny_recipe, tmp_path, one_thread):
    train(read_recipe(tiny_recipe), tmp_path / "unbroken")
    chance = random.Random()
    kills = 0
    while not run_until(tiny_recipe, tmp_path / "killed", chance.randint(3, 12), chance.uniform(0, 0.04)):
        kills += 1
        assert kills < 30, "the run never ends"
    assert kills >= 1
    assert_same_run(tmp_path / "unbroken", tmp_path / "killed")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("unbroken", "killed")]
    first, second = ([json.loads(line)["step"] for line in lines] for lines in logs)
    assert first == second


def test_resume_from_each_checkpoint(tiny_recipe, tmp_path, one_thread, monkeypatch):
    from trilemma.train import trainer

    train(read_recipe(tiny_recipe), tmp_path / "unbroken")
    original = trainer._Run._step
    for stop in (3, 4, 9, 23):

        def interrupted(self, step, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            return original(self, step)

        monkeypatch.setattr(trainer._Run, "_step", interrupted)
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            train(read_recipe(tiny_recipe), folder)
        monkeypatch.setattr(trainer._Run, "_step", original)
        train(read_recipe(tiny_recipe), folder)
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
