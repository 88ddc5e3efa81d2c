"""Samples as pictures: the bytes, the grid, and what made them."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trilemma.errors import OutputError, UsageError
from trilemma.output import provenance, write_png_grid
from trilemma.output.picture import tile, to_bytes


def test_bytes_round_and_clip():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, 100 / 127.5 - 1])
    assert to_bytes(x).tolist() == [0, 0, 128, 255, 255, 100]


def test_bytes_of_a_data_set_come_back():
    u = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(u.float() * (2 / 255) - 1), u)


@given(
    n=st.integers(1, 30),
    columns=st.none() | st.integers(1, 40),
    gap=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
)
def test_every_image_stands_in_its_place_of_the_grid(n, columns, gap, channels):
    height, width = 3, 2
    images = torch.randint(1, 256, (n, channels, height, width), dtype=torch.uint8)
    grid = tile(images, columns, gap)
    across = min(columns or int(np.ceil(np.sqrt(n))), n)
    down = -(-n // across)
    assert grid.shape == (channels, down * (height + gap) + gap, across * (width + gap) + gap)
    if columns is None:
        assert across - down in (0, 1)
    for index, image in enumerate(images):
        top = gap + index // across * (height + gap)
        left = gap + index % across * (width + gap)
        assert torch.equal(grid[:, top : top + height, left : left + width], image)
    assert int(grid.count_nonzero()) == images.numel()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_grid_shows_the_samples_enlarged_and_what_made_them(
    tmp_path, ramp, provenance_record, channels, mode
):
    path = tmp_path / "x.png"
    write_png_grid(path, ramp(4, channels), provenance_record)
    with Image.open(path) as picture:
        assert picture.mode == mode
        assert min(picture.size) > 400
        factor = 512 // 14
        shown = torch.from_numpy(np.array(picture)).view(*picture.size, channels)[::factor, ::factor]
    assert torch.equal(shown.permute(2, 0, 1), tile(to_bytes(ramp(4, channels))))
    assert provenance(path) == provenance_record
    assert os.listdir(tmp_path) == ["x.png"]


def test_what_is_no_picture_is_refused(tmp_path, ramp, provenance_record):
    with pytest.raises(UsageError, match="npz"):
        write_png_grid(tmp_path / "x.png", ramp(2, 2), provenance_record)
    with pytest.raises(OutputError, match="not finite"):
        write_png_grid(tmp_path / "x.png", ramp(2) * float("nan"), provenance_record)
    with pytest.raises(OutputError, match="JSON"):
        write_png_grid(tmp_path / "x.png", ramp(2), {"x": float("nan")})
    assert os.listdir(tmp_path) == []
