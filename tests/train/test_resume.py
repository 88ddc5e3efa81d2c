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

# One thread, and a pause that gives the killer something to hit between and during the writes.
RUN = """
import sys, time, torch
from pathlib import Path
from trilemma.train import trainer
from trilemma.train.recipe import read_recipe
torch.set_num_threads(1)
step = trainer._Run._step
def slow(self, k):
    time.sleep(0.02)
    return step(self, k)
trainer._Run._step = slow
print("ready", flush=True)
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


def test_sigkill_at_random_times_changes_nothing(tiny_recipe, tmp_path, one_thread):
    train(read_recipe(tiny_recipe), tmp_path / "unbroken")
    chance = random.Random(7)
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tiny_recipe), str(tmp_path / "killed")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        # Late kills only while few have hit, so that the run does end.
        time.sleep(chance.uniform(0.05, 0.6 + 0.3 * kills))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    else:
        pytest.fail("the run never ended")
    assert kills >= 2
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
