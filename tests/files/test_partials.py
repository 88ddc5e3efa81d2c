"""What a killed writer left half-written goes with the next start; what a living one writes stays."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from trilemma.models.card import save_model
from trilemma.output.archive import write_npz
from trilemma.output.picture import write_png_grid

CARD = {
    "model": {"name": "m"},
    "process": {"spec": "vp"},
    "denoiser": {"spec": "unet", "parameterization": "v"},
    "data": {"shape": [1, 4, 4]},
}


def write(path):
    if path.suffix == ".png":
        write_png_grid(path, torch.zeros(1, 1, 4, 4), {})
    elif path.suffix == ".npz":
        write_npz(path, torch.zeros(1, 1, 4, 4), {})
    else:
        save_model(path, CARD, {"weight": torch.zeros(2)})


@pytest.mark.parametrize("name", ["x.png", "x.npz", "model", "a[b]*.png"])
def test_a_killed_writer_s_half_goes_with_the_next(name, tmp_path, monkeypatch):
    target = tmp_path / name
    child = os.fork()
    if not child:
        # Between the content and the rename.
        monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        write(target)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    write(target)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["x.png", "x.npz", "model"])
def test_a_living_writer_s_half_stays(name, tmp_path, monkeypatch):
    """Two write the same place at once: both come to their end, and the last one's is there."""
    target = tmp_path / name
    sync, depth = os.fsync, []

    def interrupted(descriptor):
        if not depth:
            depth.append(1)
            (before,) = tmp_path.iterdir()
            child = os.fork()
            if not child:
                write(target)
                os._exit(0 if before.exists() else 3)
            assert os.waitpid(child, 0)[1] == 0
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    write(target)
    assert list(tmp_path.iterdir()) == [target]
