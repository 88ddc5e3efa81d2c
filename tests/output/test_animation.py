"""The way of samples as an animation: its frames, how long they are shown, and what made them."""

import itertools
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from trilemma.errors import DataError, OutputError, UsageError
from trilemma.output import provenance, write_animation
from trilemma.output.animation import HELD, MOST_FRAMES
from trilemma.output.picture import enlarged, tile, to_bytes


def way(states, n=3, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(states, n, channels, 4, 4, generator=generator)


def frames(path):
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0
        shown = []
        for frame in ImageSequence.Iterator(picture):
            pixels = np.array(frame.convert("RGB"))
            shown.append((frame.info["duration"], torch.from_numpy(pixels).permute(2, 0, 1)))
        return shown


@pytest.mark.parametrize(
    ("name", "channels", "off"), [("x.gif", 1, 0), ("x.webp", 1, 0), ("x.webp", 3, 0), ("x.gif", 3, 12)]
)
def test_a_frame_is_a_grid_of_one_state_clipped(tmp_path, provenance_record, name, channels, off):
    trajectory = way(7, channels=channels)
    write_animation(tmp_path / name, trajectory, provenance_record, columns=2)
    shown = frames(tmp_path / name)
    assert len(shown) == 7
    for (_, picture), state in zip(shown, trajectory, strict=True):
        expected = enlarged(tile(to_bytes(state), 2)).expand(3, -1, -1)
        # A GIF has 256 colours a frame.
        assert (picture.int() - expected.int()).abs().float().mean() <= off
    assert provenance(tmp_path / name) == provenance_record
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
@pytest.mark.parametrize(("states", "step"), [(4, 200), (31, 90), (90, 30)])
def test_the_frames_last_three_seconds_and_the_last_is_held(tmp_path, name, states, step):
    write_animation(tmp_path / name, way(states), {})
    assert [duration for duration, _ in frames(tmp_path / name)] == [step] * (states - 1) + [HELD]


def test_of_many_states_some_are_shown_the_first_and_the_last_among_them(tmp_path):
    trajectory = torch.linspace(-1, 1, 701).view(-1, 1, 1, 1, 1).expand(-1, 1, 1, 2, 2)
    write_animation(tmp_path / "x.webp", trajectory, {})
    shown = [int(picture.max()) for _, picture in frames(tmp_path / "x.webp")]
    assert len(shown) == MOST_FRAMES
    assert (shown[0], shown[-1]) == (0, 255)
    assert max(b - a for a, b in itertools.pairwise(shown)) <= 4


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
def test_a_long_provenance_comes_back(tmp_path, name):
    long = {"cond": {"class": list(range(20_000))}, "name": "ü → \ud800"}
    write_animation(tmp_path / name, way(2), long)
    assert provenance(tmp_path / name)["cond"] == long["cond"]


@pytest.mark.parametrize("kind", ["GIF", "JPEG"])
def test_somebody_elses_comment_is_no_provenance(tmp_path, kind):
    path = tmp_path / f"x.{kind.lower()}"
    Image.new("L", (4, 4)).save(path, kind, comment=b'{"seed": 1}')
    with pytest.raises(DataError, match="holds no provenance"):
        provenance(path)


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(UsageError, match="2 channels"):
        write_animation(tmp_path / "x.gif", way(3, channels=2), {})
    with pytest.raises(OutputError, match="not finite"):
        write_animation(tmp_path / "x.gif", way(3) / 0, {})
    assert os.listdir(tmp_path) == []
