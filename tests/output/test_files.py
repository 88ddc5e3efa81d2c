"""Files are there whole or not at all, and say what made them."""

import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.errors import DataError, OutputError
from trilemma.output import provenance, write_npz, write_png_grid
from trilemma.output.atomic import replacing


def test_an_archive_holds_the_samples(tmp_path, ramp, provenance_record):
    path = tmp_path / "x.npz"
    write_npz(path, ramp(3).to(torch.bfloat16), provenance_record)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["samples"].dtype == np.float32
        np.testing.assert_array_equal(archive["samples"], ramp(3).bfloat16().float().numpy())
    assert provenance(path) == provenance_record


@pytest.mark.parametrize("write", [write_png_grid, write_npz])
def test_a_full_disk_leaves_what_was_there(tmp_path, ramp, provenance_record, full_disk, write):
    path = tmp_path / "x"
    path.write_text("before")
    full_disk()
    with pytest.raises(OutputError, match=r"cannot write .*No space left on device; free space") as caught:
        write(path, ramp(2), provenance_record)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


def test_an_interruption_leaves_what_was_there(tmp_path):
    def interrupted():
        with replacing(tmp_path / "x") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_a_file_has_the_rights_of_any_other_and_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "link") as file:
        file.write(b"whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"whole"
    rights = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("target", "plain")}
    assert len(rights) == 1


@pytest.mark.parametrize("name", ["none.png", "plain.png", "text.npz", "empty", "list.json"])
def test_a_file_without_provenance_is_named(tmp_path, name):
    if name == "plain.png":
        Image.new("L", (2, 2)).save(tmp_path / name)
    elif name == "text.npz":
        (tmp_path / name).write_text("no archive")
    elif name == "empty":
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=name) as caught:
        provenance(tmp_path / name)
    assert "\n" not in str(caught.value)
