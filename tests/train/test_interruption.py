"""A run that is asked to end does so after a step, with a checkpoint, and goes on to the same bits."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trilemma.train import trainer
from trilemma.train.checkpoint import list_checkpoints
from trilemma.train.interruption import Interrupted, Interruption
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

# More than a child does before it is told to stop; the checkpoints of its own are rarer still.
LONG = ["steps=400", "checkpoint_every=1000", "log_every=1", "validation.fraction=0.2", "validation.every=50"]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(recipe: Path, folder: Path) -> list[str]:
    sets = [word for override in LONG for word in ("--set", override)]
    return [
        *(sys.executable, "-m", "trilemma", "train", str(recipe), *sets),
        *("--out", str(folder), "--threads", "1", "--no-progress"),
    ]


def started(words: list[str], place: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | dict(place or {})
    return subprocess.Popen(
        words,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_steps(folder: Path, count: int, child: subprocess.Popen[str]) -> None:
    log = folder / "log.jsonl"
    while child.poll() is None and (not log.exists() or log.read_text().count("\n") < count):
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_the_run_goes_on_to_the_same_bits(
    number, tiny_recipe, tmp_path, one_thread
):
    folder = tmp_path / "a run"
    child = started(command(tiny_recipe, folder))
    wait_for_steps(folder, 5, child)
    child.send_signal(number)
    said, error = child.communicate(timeout=120)
    assert (child.returncode, said) == (130, "")
    step = int(re.search(r"stopped after step (\d+) of 400", error)[1])
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == [f"step-{step:09d}"]
    assert 5 <= step < 400
    assert error.count("\n") == 1
    assert f"go on with: trilemma train {tiny_recipe}" in error
    assert f"--out '{folder}'" in error
    assert not (folder / ".lock").exists()
    recipe = read_recipe(tiny_recipe, LONG)
    train(recipe, folder)
    train(recipe, tmp_path / "unbroken")
    for part in ("checkpoints/step-000000400/state.safetensors", "model/weights.safetensors"):
        first, second = (load_file(place / part) for place in (folder, tmp_path / "unbroken"))
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key != "images_per_second"}
            for line in (place / "log.jsonl").read_text().splitlines()
        ]
        for place in (folder, tmp_path / "unbroken")
    ]
    assert logs[0] == logs[1]


def test_one_of_two_processes_that_is_told_ends_both_after_the_same_step(tiny_recipe, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    folder = tmp_path / "run"
    children = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        children.append(started(command(tiny_recipe, folder), place))
    wait_for_steps(folder, 5, children[0])
    children[1].send_signal(signal.SIGTERM)
    answers = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [130, 130], answers
    steps = {re.search(r"stopped after step (\d+) of 400", answer)[1] for answer in answers}
    assert len(steps) == 1
    found = [path.name for path in list_checkpoints(folder / "checkpoints")]
    assert found == [f"step-{int(steps.pop()):09d}"]


def signalled(monkeypatch, steps: dict[int, int]) -> None:
    """Sends this process SIGINT so many times while a step is computed."""
    original = trainer._Run._step

    def step(self, k):
        result = original(self, k)
        for _ in range(steps.get(k, 0)):
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(trainer._Run, "_step", step)


def test_a_second_signal_ends_it_at_once(tiny_recipe, tmp_path, monkeypatch):
    signalled(monkeypatch, {5: 2})
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(read_recipe(tiny_recipe), tmp_path / "run")
    assert caught.type is KeyboardInterrupt
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000000004"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(("step", "found"), [(0, [1]), (5, [4, 6]), (7, [4, 8])])
def test_one_ends_it_after_the_step(tiny_recipe, tmp_path, monkeypatch, step, found):
    signalled(monkeypatch, {step: 1})
    with pytest.raises(Interrupted) as caught:
        train(read_recipe(tiny_recipe), tmp_path / "run")
    assert (caught.value.step, caught.value.steps) == (step + 1, 24)
    names = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == [f"step-{k:09d}" for k in found]
    assert not (tmp_path / "run" / "model").exists()


def test_one_in_the_last_step_lets_it_end(tiny_recipe, tmp_path, monkeypatch):
    signalled(monkeypatch, {23: 1})
    assert train(read_recipe(tiny_recipe), tmp_path / "run").model.is_dir()


def test_an_ignored_signal_stays_ignored_and_another_thread_is_let_be():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert not interruption.asked
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def elsewhere():
        with Interruption() as interruption:
            seen.append((signal.getsignal(signal.SIGINT), interruption.asked))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
