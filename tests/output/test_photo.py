"""Samples as a JPEG: the picture, and what made it."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.errors import OutputError, UsageError
from trilemma.output import destination, provenance, write_jpeg_grid, write_png_grid
from trilemma.output.picture import sheet


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("n", [1, 4])
def test_it_shows_the_samples_and_what_made_them(tmp_path, ramp, provenance_record, channels, mode, n):
    path = tmp_path / "x.jpg"
    write_jpeg_grid(path, ramp(n, channels), provenance_record)
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("JPEG", mode)
        shown = torch.from_numpy(np.array(picture)).view(*picture.size, channels).permute(2, 0, 1)
    assert (shown.int() - sheet(ramp(n, channels)).int()).abs().float().mean() < 4
    assert provenance(path) == provenance_record
    assert os.listdir(tmp_path) == ["x.jpg"]


def test_colours_are_not_subsampled(tmp_path):
    """Columns of red and blue in turns stay apart."""
    x = torch.full((1, 3, 16, 16), -1.0)
    x[:, 0, :, ::2] = 1
    x[:, 2, :, 1::2] = 1
    write_jpeg_grid(tmp_path / "x.jpg", x, {})
    with Image.open(tmp_path / "x.jpg") as picture:
        pixels = np.array(picture).astype(int)
    assert pixels[:, ::2, 0].min() > 150
    assert pixels[:, 1::2, 0].max() < 100


def test_one_sample_has_its_own_size(tmp_path, ramp, provenance_record):
    for write, name in ((write_png_grid, "x.png"), (write_jpeg_grid, "x.jpg")):
        write(tmp_path / name, ramp(1), provenance_record)
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (4, 4)


def test_a_provenance_that_no_comment_can_hold_is_refused_before_anything_is_drawn(tmp_path):
    long = {"cond": {"class": list(range(20_000))}}
    with pytest.raises(UsageError, match=r"a JPEG's comment at most 65,533; write a \.png"):
        destination(str(tmp_path / "x.jpg")).open([0], long)
    with pytest.raises(UsageError, match="65,533"):
        write_jpeg_grid(tmp_path / "x.jpg", torch.zeros(1, 1, 2, 2), long)
    assert os.listdir(tmp_path) == []


def test_what_is_no_picture_is_refused(tmp_path, ramp, provenance_record):
    with pytest.raises(UsageError, match="npz"):
        write_jpeg_grid(tmp_path / "x.jpg", ramp(2, 2), provenance_record)
    with pytest.raises(OutputError, match="not finite"):
        write_jpeg_grid(tmp_path / "x.jpg", ramp(2) * float("nan"), provenance_record)
    assert os.listdir(tmp_path) == []
