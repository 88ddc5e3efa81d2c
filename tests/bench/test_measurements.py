"""Measurements of benchmarks, which a stopped run goes on from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "measurements", raising=False)
    return importlib.import_module("measurements")


def test_nothing_is_measured_twice_and_a_cut_line_is_measured_again(
    measurements: ModuleType, tmp_path: Path
) -> None:
    file, measured = tmp_path / "new" / "some.jsonl", []

    def of(kept, n: int):
        return kept.of({"n": n, "levels": (0.0, 0.1)}, f"n={n}", lambda: measured.append(n) or {"value": n})

    first = measurements.Measurements(file)
    assert [of(first, n) for n in (1, 2, 1)] == [{"value": 1}, {"value": 2}, {"value": 1}]
    assert measured == [1, 2]
    with file.open("a") as cut:
        cut.write('{"key": {"n": 3, "lev')
    again = measurements.Measurements(file)
    assert [of(again, n) for n in (1, 2, 3)] == [{"value": 1}, {"value": 2}, {"value": 3}]
    assert measured == [1, 2, 3]
    assert len(file.read_text().splitlines()) == 3


def test_a_table_measures_nothing(measurements: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no measurement of n=1; measure it without --table"):
        measurements.Measurements(tmp_path / "some.jsonl", complete=True).of({}, "n=1", dict)
    assert not list(tmp_path.iterdir())
