"""One run in a folder, and nothing left of those that were killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from trilemma.errors import ModelError
from trilemma.files.partials import held, hold, partial_name, remove_stale
from trilemma.train.lock import locked
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train


@pytest.fixture
def beside():
    """Runs a function in a process of its own that then waits to be killed."""
    children = []

    def start(function: Callable[[], None]) -> int:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                function()
                os.write(writer, b"!")
                time.sleep(600)
            finally:
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"!"
        os.close(reader)
        children.append(child)
        return child

    yield start
    for child in children:
        kill(child)


def kill(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(beside, tiny_recipe, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    kept = []

    def take() -> None:
        context = locked(folder)
        kept.append(context)
        context.__enter__()

    child = beside(take)
    recipe = read_recipe(tiny_recipe, ["steps=2"])
    with pytest.raises(
        ModelError, match=f"is being trained in by process {child} on .*; wait for it, stop it, or"
    ):
        train(recipe, folder)
    assert sorted(path.name for path in folder.iterdir()) == [".lock"]
    kill(child)
    train(recipe, folder)
    assert not (folder / ".lock").exists()


def test_a_thread_of_the_same_process_is_kept_out_too(tmp_path):
    with locked(tmp_path), pytest.raises(ModelError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_what_killed_runs_left_half_written_goes(tiny_recipe, tmp_path):
    folder = tmp_path / "run"
    dead = 2**22 + 1  # above the largest process number
    left = [
        folder / "checkpoints" / f".step-000000002.{dead}.{dead}.partial",
        folder / f".model.{dead}.{dead}.partial",
    ]
    for path in left:
        path.mkdir(parents=True)
        (path / "half").write_bytes(b"half")
    (folder / f".log.jsonl.{dead}.{dead}.partial").write_bytes(b"half")
    train(read_recipe(tiny_recipe, ["steps=2"]), folder)
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_living_writer_s_partial_stays_until_it_dies(beside, tmp_path, kind):
    target = tmp_path / "x.png"

    def write() -> None:
        partial = partial_name(target)
        if kind == "file":
            descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY)
            hold(descriptor)
        else:
            partial.mkdir()
            held(partial).__enter__()

    child = beside(write)
    (tmp_path / ".y.png.4194305.4194305.partial").write_bytes(b"of another target")
    remove_stale(target)
    assert len(list(tmp_path.iterdir())) == 2
    kill(child)
    remove_stale(target)
    assert [path.name for path in tmp_path.iterdir()] == [".y.png.4194305.4194305.partial"]


def test_a_lock_alone_keeps_a_partial_of_another_machine(tmp_path):
    """Whose process number means nothing here."""
    target = tmp_path / "x.npz"
    foreign = tmp_path / ".x.npz.4194305.4194305.partial"
    descriptor = os.open(foreign, os.O_CREAT | os.O_WRONLY)
    hold(descriptor)
    remove_stale(target)
    assert foreign.exists()
    os.close(descriptor)
    remove_stale(target)
    assert not foreign.exists()
