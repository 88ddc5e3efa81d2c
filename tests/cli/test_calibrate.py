"""trilemma calibrate writes a record whole or not at all, and what runs afterwards chooses by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.bench import calibration
from trilemma.bench.calibration import Task
from trilemma.cli.app import main
from trilemma.ops import choice, native
from trilemma.ops.choice import Record

pytestmark = pytest.mark.skipif(bool(native.load()), reason=native.load())


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder, and a grid of one cell that takes no time."""
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRILEMMA_CALIBRATION", raising=False)
    task = Task("conv3x3", "float32", "contiguous", (64, 16), 1.0, lambda: lambda: lambda: None)
    monkeypatch.setattr(calibration, "grid", lambda: iter([task]))
    choice.forget()
    yield tmp_path
    monkeypatch.undo()
    choice.forget()
    choice.prepared()


def doctor(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["doctor", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["native"]
    return found


def test_it_is_kept_found_and_named(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = doctor(capsys)
    assert before["level"] == choice.Machine.here().level
    assert "trilemma calibrate" in before["calibration"]
    assert main(["calibrate", "--seconds", "0.1", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["cells"], captured.err) == (1, "")
    path = choice.Machine.here().file
    assert Path(told["path"]) == path
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    after = doctor(capsys)
    assert str(path) in after["choice"]
    assert choice.in_force().digest[:12] in after["choice"]
    assert "calibration" not in after


def test_off_and_a_calibration_that_does_not_fit_are_said(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILEMMA_CALIBRATION", "off")
    assert doctor(capsys)["calibration"] == "off"
    monkeypatch.setenv("TRILEMMA_CALIBRATION", str(cache / "none.json"))
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("warning: cannot read the calibration")
    assert "No such file" in json.loads(captured.out)["native"]["calibration"]


def test_the_file_that_is_asked_for(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cache / "new" / "mine.json"
    threads = torch.get_num_threads()
    try:
        assert main(["calibrate", "--seconds", "0.1", "--threads", "3", "--out", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    assert f"TRILEMMA_CALIBRATION={path}" in capsys.readouterr().out
    assert Record.read(path).machine.threads == 3
    assert not choice.Machine.here().file.exists()


@pytest.mark.parametrize(
    ("place", "error", "code"),
    [
        ("trilemma.bench.calibration.measure", KeyboardInterrupt, 130),
        ("trilemma.output.atomic.os.fsync", OSError("the disk is full"), 1),
    ],
)
def test_nothing_is_left_half_written(
    cache: Path, place: str, error: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache / "mine.json"
    path.write_text("before")

    def stopped(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(place, stopped)
    assert main(["calibrate", "--seconds", "0.1", "--out", str(path)]) == code
    assert path.read_text() == "before"
    assert [entry.name for entry in cache.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("place", ["folder", "file/below.json"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    cache: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "folder").mkdir()
    (cache / "file").touch()
    monkeypatch.setattr(calibration, "calibrated", lambda *_, **__: pytest.fail("measured"))
    assert main(["calibrate", "--out", str(cache / place)]) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_sample_says_by_what_its_network_chose(cache: Path) -> None:
    def chosen() -> Any:
        return trilemma.sample("mnist", 1, steps=1).provenance["choice"]

    before = chosen()
    assert before == choice.in_force().record()
    assert before["source"] in ("shipped", "default")
    assert main(["calibrate", "--seconds", "0.1"]) == 0
    after = chosen()
    assert after["source"] == "calibration"
    assert after == choice.in_force().record()
