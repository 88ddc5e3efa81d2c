"""Samples write themselves: every kind of place, with what made them, as the command line does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import OutputError, UsageError
from trilemma.output import provenance
from trilemma.output.picture import to_bytes
from trilemma.testing.gaussian import GaussianDenoiser

SHAPE = (1, 4, 4)


def model(process: str = "vp") -> GaussianDenoiser:
    return GaussianDenoiser(trilemma.process(process), 0.3, 0.25, shape=SHAPE)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.jpeg", "x.npz", "folder", "folder/"])
def test_every_kind_of_place(tmp_path: Path, name: str) -> None:
    drawn = trilemma.sample(model(), 4, steps=2, seed=3)
    path = drawn.save(f"{tmp_path}/{name}")
    assert path == tmp_path / name
    kept = provenance(path)
    assert kept == json.loads(json.dumps({**drawn.provenance, "n": 4, "indices": "0-3"}))
    assert os.listdir(tmp_path) == [name.rstrip("/")]


def test_an_array_holds_the_samples_and_their_way(tmp_path: Path) -> None:
    drawn = trilemma.sample(model(), 3, steps=2, trajectory=True)
    archive = np.load(drawn.save(tmp_path / "x.npz"))
    np.testing.assert_array_equal(archive["samples"], drawn.samples.numpy())
    np.testing.assert_array_equal(archive["trajectory"], drawn.trajectory.numpy())
    np.testing.assert_array_equal(archive["times"], drawn.times)


def test_samples_go_under_their_indices(tmp_path: Path) -> None:
    drawn = trilemma.sample(model(), indices=[7, 2], steps=2)
    path = drawn.save(tmp_path / "folder")
    for index, sample in zip((7, 2), drawn.samples, strict=True):
        with Image.open(path / f"{index:08d}.png") as picture:
            np.testing.assert_array_equal(np.array(picture), to_bytes(sample)[0].numpy())
    assert provenance(drawn.save(tmp_path / "x.png"))["indices"] == "7,2"
    with pytest.raises(UsageError, match="an index twice"):
        trilemma.sample(model(), indices=[7, 7], steps=2).save(tmp_path / "y.png")


def test_a_folder_grows_and_refuses_other_samples(tmp_path: Path) -> None:
    trilemma.sample(model(), 2, steps=2).save(tmp_path / "x")
    trilemma.sample(model(), indices=[1, 5], steps=2).save(tmp_path / "x")
    assert sorted(os.listdir(tmp_path / "x"))[:3] == ["00000000.png", "00000001.png", "00000005.png"]
    with pytest.raises(OutputError, match="seed is 0 there, 1 now"):
        trilemma.sample(model(), 2, steps=2, seed=1).save(tmp_path / "x")


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
def test_an_animation_needs_the_way(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="draw them with trajectory=True"):
        trilemma.sample(model(), 2, steps=3).save(tmp_path / name)
    assert os.listdir(tmp_path) == []
    path = trilemma.sample(model(), 2, steps=3, trajectory=True).save(tmp_path / name, columns=1)
    with Image.open(path) as picture:
        assert picture.n_frames == 4
        assert picture.size[0] * 2 < picture.size[1] * 1.2


def test_of_a_state_in_phase_space_the_data_is_shown(tmp_path: Path) -> None:
    states = torch.linspace(-1, 1, 3 * 2 * 16).view(3, 1, 2, 4, 4)
    drawn = trilemma.engine.sampling.Samples(states[-1, :, :1], {}, states, (1.0, 0.5, 0.0))
    path = drawn.save(tmp_path / "x.webp")
    with Image.open(path) as picture:
        picture.seek(picture.n_frames - 1)
        last = np.array(picture.convert("L"))
    factor = 512 // 8
    assert np.array_equal(last[::factor, ::factor][2:6, 2:6], to_bytes(drawn.samples)[0, 0].numpy())


def test_the_place_is_refused_as_on_the_command_line(tmp_path: Path) -> None:
    drawn = trilemma.sample(model(), 2, steps=2)
    with pytest.raises(UsageError, match="unknown suffix"):
        drawn.save(tmp_path / "x.bmp")
    with pytest.raises(OutputError, match="there is no folder"):
        drawn.save(tmp_path / "none" / "x.png")
    with pytest.raises(UsageError, match="no columns"):
        drawn.save(tmp_path / "x.npz", columns=2)
    assert os.listdir(tmp_path) == []


def test_the_latents_of_an_inversion_write_themselves_too(tmp_path: Path) -> None:
    found = trilemma.invert(model(), torch.zeros(2, *SHAPE), steps=3)
    np.testing.assert_array_equal(np.load(found.save(tmp_path / "x.npz"))["samples"], found.samples.numpy())
