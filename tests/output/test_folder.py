"""A folder of pictures grows batch by batch and is gone on with, but only by what began it."""

import os

import numpy as np
import pytest
from PIL import Image

from trilemma.errors import OutputError
from trilemma.output import SampleFolder, provenance
from trilemma.output.picture import to_bytes


def test_a_folder_goes_on_where_it_stopped(tmp_path, ramp, provenance_record):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([0, 2], ramp(2))
    again = {**provenance_record, "seconds": 9.0, "n": 4}
    with SampleFolder(tmp_path / "out", again) as folder:
        assert folder.missing(range(4)) == [1, 3]
        folder.add([1, 3], ramp(2))
        assert folder.drawn() == [0, 1, 2, 3]
        folder.finish(again)
    with Image.open(tmp_path / "out" / "00000002.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), to_bytes(ramp(2)[1, 0]).numpy())
    assert provenance(tmp_path / "out") == again
    assert len(os.listdir(tmp_path / "out")) == 5


def test_every_picture_says_which_sample_it_is(tmp_path, ramp, provenance_record):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([3], ramp(1))
    found = provenance(tmp_path / "out" / "00000003.png")
    assert (found["index"], found["seed"], found["cond"]) == (3, 4, {"class": 2})


def test_a_picture_that_is_not_whole_is_drawn_again(tmp_path, ramp, provenance_record):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([0, 1, 2], ramp(3))
        whole = folder.picture(1).read_bytes()
        folder.picture(1).write_bytes(whole[:-1])
        folder.picture(2).write_bytes(b"")
        assert folder.missing(range(3)) == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"sampler": "ddpm"},
        {"model": {"name": "tiny", "sha256": "cd"}},
        {"cond": {"class": 1}},
        {"steps": 4},
    ],
)
def test_samples_of_another_run_are_refused(tmp_path, ramp, provenance_record, change):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([0], ramp(1))
    with (
        pytest.raises(OutputError, match=f"another run: {next(iter(change))} is") as caught,
        SampleFolder(tmp_path / "out", {**provenance_record, **change}),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert len(os.listdir(tmp_path / "out")) == 2


def test_other_things_are_left_alone(tmp_path, provenance_record):
    (tmp_path / "thesis.tex").write_text("")
    with (
        pytest.raises(OutputError, match="new or an empty folder"),
        SampleFolder(tmp_path, provenance_record),
    ):
        pass
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with (
        pytest.raises(OutputError, match="no folder"),
        SampleFolder(tmp_path / "thesis.tex", provenance_record),
    ):
        pass
    with pytest.raises(OutputError, match="make it"), SampleFolder(tmp_path / "a" / "b", provenance_record):
        pass


def test_two_cannot_write_into_one_folder(tmp_path, ramp, provenance_record):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([0], ramp(1))
        with (
            pytest.raises(OutputError, match="another process"),
            SampleFolder(tmp_path / "out", provenance_record),
        ):
            pass
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        assert folder.drawn() == [0]


def test_what_a_killed_process_left_is_removed(tmp_path, ramp, provenance_record):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([0], ramp(1))
    (tmp_path / "out" / ".00000001.png.1234.partial").write_bytes(b"half")
    with SampleFolder(tmp_path / "out", provenance_record):
        pass
    assert sorted(os.listdir(tmp_path / "out")) == ["00000000.png", "provenance.json"]


def test_a_full_disk_keeps_the_batches_before_and_nothing_of_this_one(
    tmp_path, ramp, provenance_record, full_disk
):
    with SampleFolder(tmp_path / "out", provenance_record) as folder:
        folder.add([0, 1], ramp(2))
        full_disk()
        with pytest.raises(OutputError, match="No space left on device"):
            folder.add([2, 3], ramp(2))
    assert sorted(os.listdir(tmp_path / "out")) == ["00000000.png", "00000001.png", "provenance.json"]


@pytest.mark.parametrize("there_before", [False, True])
def test_a_failure_before_the_first_picture_leaves_no_trace(
    tmp_path, ramp, provenance_record, full_disk, there_before
):
    path = tmp_path / "out"
    if there_before:
        path.mkdir()
    with pytest.raises(OutputError, match="not finite"), SampleFolder(path, provenance_record) as folder:
        folder.add([0], ramp(1) * float("nan"))
    assert path.exists() == there_before
    full_disk()
    with pytest.raises(OutputError, match="No space"), SampleFolder(path, provenance_record):
        pass
    assert path.exists() == there_before
    assert not there_before or os.listdir(path) == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_record_is_named(tmp_path, provenance_record, text):
    (tmp_path / "provenance.json").write_text(text)
    with (
        pytest.raises(OutputError, match=r"provenance\.json") as caught,
        SampleFolder(tmp_path, provenance_record),
    ):
        pass
    assert "\n" not in str(caught.value)
