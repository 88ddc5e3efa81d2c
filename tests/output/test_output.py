"""Files of samples: what is in them, that they are whole, and that folders go on where they stopped."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.errors import DataError, OutputError, UsageError
from trilemma.output import SampleFolder, provenance, write_npz, write_png_grid
from trilemma.output.picture import tile, to_bytes

PROVENANCE = {
    "model": {"name": "tiny", "sha256": "ab"},
    "sampler": "ddim",
    "guidance": None,
    "process": "vp",
    "steps": 3,
    "cond": {"class": [1, 2]},
    "seed": 4,
    "noise": "KeyedNoise",
    "dtype": "float32",
    "deterministic": False,
    "seconds": 1.5,
    "n": 2,
}


def ramp(n, channels=1):
    values = torch.linspace(-1, 1, n * channels * 16)
    return values.view(n, channels, 4, 4)


def test_bytes_round_and_clip():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, 100 / 127.5 - 1])
    assert to_bytes(x).tolist() == [0, 0, 128, 255, 255, 100]


def test_every_image_stands_in_its_place_of_the_grid():
    grid = tile(ramp(5), gap=1)
    assert grid.shape == (1, 2 * 5 + 1, 3 * 5 + 1)
    assert torch.equal(grid[:, 6:10, 6:10], to_bytes(ramp(5)[4]))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_grid_carries_its_provenance(tmp_path, channels, mode):
    path = tmp_path / "x.png"
    write_png_grid(path, ramp(4, channels), PROVENANCE)
    with Image.open(path) as picture:
        assert picture.mode == mode
        assert min(picture.size) > 400
    assert provenance(path) == PROVENANCE
    assert os.listdir(tmp_path) == ["x.png"]


def test_other_channels_are_no_picture(tmp_path):
    with pytest.raises(UsageError, match="npz"):
        write_png_grid(tmp_path / "x.png", ramp(2, 2), PROVENANCE)
    assert os.listdir(tmp_path) == []


def test_an_archive_holds_the_samples(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, ramp(3), PROVENANCE)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["samples"].dtype == np.float32
        np.testing.assert_array_equal(archive["samples"], ramp(3).numpy())
    assert provenance(path) == PROVENANCE


def test_a_folder_goes_on_where_it_stopped(tmp_path):
    folder = SampleFolder(tmp_path / "out", PROVENANCE)
    folder.write([0, 2], ramp(2))
    again = SampleFolder(tmp_path / "out", {**PROVENANCE, "seconds": 9.0, "n": 4})
    assert again.missing(4) == [1, 3]
    with Image.open(tmp_path / "out" / "00000002.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), to_bytes(ramp(2)[1, 0]).numpy())
    assert provenance(tmp_path / "out" / "00000002.png")["index"] == 2
    assert provenance(tmp_path / "out")["seed"] == 4


def test_a_folder_of_other_samples_or_things_is_refused(tmp_path):
    SampleFolder(tmp_path / "out", PROVENANCE)
    with pytest.raises(OutputError, match="seed"):
        SampleFolder(tmp_path / "out", {**PROVENANCE, "seed": 5})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="no samples"):
        SampleFolder(tmp_path / "other", PROVENANCE)
    assert os.listdir(tmp_path / "other") == ["thesis.tex"]


@pytest.mark.parametrize("write", [write_png_grid, write_npz])
def test_a_full_disk_leaves_what_was_there(tmp_path, write, monkeypatch):
    path = tmp_path / "x"
    path.write_text("before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write(path, ramp(2), PROVENANCE)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["none.png", "plain.png", "text.npz"])
def test_a_file_without_provenance_is_named(tmp_path, name):
    if name == "plain.png":
        Image.new("L", (2, 2)).save(tmp_path / name)
    elif name == "text.npz":
        (tmp_path / name).write_text("no archive")
    with pytest.raises(DataError, match=name):
        provenance(tmp_path / name)


def test_provenance_is_json(tmp_path):
    write_npz(tmp_path / "x.npz", ramp(1), PROVENANCE)
    assert json.dumps(provenance(tmp_path / "x.npz"))
