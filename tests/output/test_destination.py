"""A path says what kind of output it is, and indices read as they are written."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.errors import OutputError, UsageError
from trilemma.output import destination, format_indices, parse_indices, provenance
from trilemma.output.destination import Animation, Folder, JpegGrid, Npz, PngGrid


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("x.png", PngGrid),
        ("X.PNG", PngGrid),
        ("x.jpg", JpegGrid),
        ("X.JPEG", JpegGrid),
        ("x.gif", Animation),
        ("x.webp", Animation),
        ("a.b/x.npz", Npz),
        ("x", Folder),
        ("x.png/", Folder),
        ("v1.5/", Folder),
    ],
)
def test_the_suffix_decides(path, kind):
    assert type(destination(path)) is kind


def test_a_folder_that_is_there_may_have_a_dot(tmp_path):
    (tmp_path / "v1.5").mkdir()
    assert type(destination(str(tmp_path / "v1.5"))) is Folder


@pytest.mark.parametrize(
    ("path", "columns", "message"),
    [
        ("x.bmp", None, "unknown suffix '.bmp'"),
        ("", None, "no name"),
        ("x.png", 0, "columns=0"),
        ("x", 3, "no columns"),
    ],
)
def test_what_no_output_is_is_refused(path, columns, message):
    with pytest.raises(UsageError, match=message) as caught:
        destination(path, columns)
    assert "\n" not in str(caught.value)


def test_a_place_is_tried_before_anything_is_drawn(tmp_path):
    destination(str(tmp_path / "x.png")).check((1, 4, 4))
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputError, match="make it"):
        destination(str(tmp_path / "none" / "x.png")).check((1, 4, 4))
    (tmp_path / "y.npz").symlink_to(os.devnull)
    with pytest.raises(OutputError, match="no file"):
        destination(str(tmp_path / "y.npz")).check((1, 4, 4))
    for name in ("x.png", "x"):
        with pytest.raises(UsageError, match="2 channels"):
            destination(str(tmp_path / name)).check((2, 4, 4))
    destination(str(tmp_path / "x.npz")).check((2, 4, 4))


def test_a_place_without_rights_is_refused(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        destination(str(tmp_path / "x.png")).check((1, 4, 4))


def test_samples_are_kept_in_the_order_of_their_indices(tmp_path, ramp, provenance_record):
    samples = ramp(3)
    with destination(str(tmp_path / "x.npz")).open([7, 2, 5], provenance_record) as sink:
        assert sink.missing() == [7, 2, 5]
        sink.add([2, 5], samples[1:])
        sink.add([7], samples[:1])
        kept = sink.finish({**provenance_record, "n": 99})
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["samples"], samples.numpy())
    assert kept == provenance(tmp_path / "x.npz") == {**provenance_record, "n": 3, "indices": "7,2,5"}


def test_a_folder_records_all_that_it_holds(tmp_path, ramp, provenance_record):
    place = destination(str(tmp_path / "x"))
    with place.open([0, 1], provenance_record) as sink:
        sink.add([0, 1], ramp(2))
        sink.finish(provenance_record)
    with place.open([1, 2], provenance_record) as sink:
        assert sink.missing() == [2]
        sink.add([2], ramp(1))
        kept = sink.finish({**provenance_record, "n": 1})
    assert kept == provenance(tmp_path / "x") == {**provenance_record, "n": 3, "indices": "0-2"}


@given(st.lists(st.integers(0, 40), unique=True, min_size=1))
def test_indices_read_as_they_are_written(indices):
    assert parse_indices(format_indices(indices)) == indices


def test_indices_are_short():
    assert format_indices(range(10_000)) == "0-9999"
    assert parse_indices(" 0-3, 9 ") == [0, 1, 2, 3, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no index"),
        ("a", "'a'"),
        ("-1", "'-1'"),
        ("3-1", "empty"),
        ("1,0-2", "twice"),
        (str(2**56), "too large"),
    ],
)
def test_other_indices_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_indices(text)
