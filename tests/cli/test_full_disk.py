"""A disk that refuses: one line, what was there stays, and once there is room again the work goes on."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from trilemma.cli.app import main
from trilemma_plugins.unet.unet import UNet

FAILURE = 1


@contextlib.contextmanager
def disk_that_takes(size: int) -> Iterator[None]:
    """Lets the kernel refuse what would make any file larger than `size` bytes; a short write comes before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("out", ["x.png", "x.npz", "kept.png", "folder"])
def test_samples_are_there_whole_or_not_at_all(refused, here, model, out, size):
    (here / "kept.png").write_bytes(b"what was there before")
    with disk_that_takes(size):
        command = ["sample", model, "-n", 4, "--steps", 2, "--no-progress", "--out", out]
        error = refused(FAILURE, "free space or choose another place", *command)
    assert "cannot write" in error
    assert out in error


@pytest.mark.parametrize("size", [0, 20])
def test_pictures_of_the_runs_before_are_kept(capsys, here, model, contents, size):
    command = ["sample", str(model), "--steps", "2", "--batch-size", "2", "--no-progress", "--out", "folder"]
    assert main([*command, "-n", "3"]) == 0
    before = contents(here)
    capsys.readouterr()
    with disk_that_takes(size):
        assert main([*command, "-n", "6"]) == FAILURE
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(here) == before
    assert main([*command, "-n", "6"]) == 0
    pictures = list(Path("folder").glob("*.png"))
    assert len(pictures) == 6
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()


def test_a_batch_that_is_not_finite_leaves_the_batches_before(capsys, here, model, contents, monkeypatch):
    """Samples 0 to 2 are good, 3 and 4 come together and are not."""
    command = ["sample", str(model), "--steps", "5", "--batch-size", "3", "--no-progress", "--out", "folder"]
    assert main([*command, "-n", "3"]) == 0
    pictures = contents(here)
    forward = UNet.forward

    def broken(self: UNet, z: torch.Tensor, t: torch.Tensor, **cond: torch.Tensor) -> torch.Tensor:
        answer = forward(self, z, t, **cond)
        if len(answer) == 2 and float(t[0]) < 0.5:
            answer[1, 0, 3, 3] = torch.nan
        return answer

    monkeypatch.setattr(UNet, "forward", broken)
    assert main([*command, "-n", "5"]) == FAILURE
    error = capsys.readouterr().err
    assert "step 4 of 5 (t=0.4) gave a value that is not finite in sample 4; " in error
    assert contents(here) == pictures


@pytest.mark.parametrize("size", [0, 200, 4000])
def test_a_run_goes_on_once_its_checkpoints_find_room(capsys, here, recipe, size):
    command = ["train", str(recipe), "--out", "run", "--no-progress"]
    with disk_that_takes(size):
        assert main(command) == FAILURE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write")
    assert "free space or choose another" in line
    names = [path.name for path in here.rglob("*")]
    assert not [name for name in names if "step-" in name or "partial" in name or name == "model"]
    assert main(command) == 0
    assert len(Path("run", "log.jsonl").read_text().splitlines()) == 2
    assert Path("run", "model", "model.toml").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("out", ["x.png", "x.npz", "folder"])
def test_a_folder_that_must_not_be_written(refused, here, model, out):
    here.chmod(0o500)
    try:
        refused(FAILURE, "Permission denied", "sample", model, "-n", 1, "--steps", 1, "--out", out)
    finally:
        here.chmod(0o700)
