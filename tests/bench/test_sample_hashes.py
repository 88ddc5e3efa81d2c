"""The command that records the bits of samples: all components have cases, and it names a case that differs."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from trilemma.models.places import model_path
from trilemma.models.reading import kind_of, read_card
from trilemma.registry import catalog
from trilemma_plugins.ddim.sampler import DDIM

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sample_hashes.py"
ONLY = "auto/sampler/ddim/vp/eps/"


@pytest.fixture(scope="module")
def hashes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_hashes", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["sample_hashes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the variable that the command sets back after each test."""
    monkeypatch.setenv("TRILEMMA_BACKEND", "auto")


def test_every_component_has_cases_and_every_case_a_name(hashes: ModuleType) -> None:
    names = [name for name, _ in hashes.cases()]
    assert len(names) == len(set(names))
    places = {part for name in names for part in name.split("/")}
    specs = {part.partition(":")[0] for part in places}
    for kind in ("sampler", "guidance", "process"):
        own = {found.address for found in catalog().components(kind) if found.built_in}
        assert own <= specs, f"no case of the {kind} {own - specs}"
    models = {
        found.address
        for found in catalog().components("model")
        if found.built_in and kind_of(read_card(model_path(found.address))) == "denoiser"
    }
    assert models <= places


def test_the_same_twice_and_nothing_that_time_changes(hashes: ModuleType) -> None:
    first, second = hashes.record(ONLY), hashes.record(ONLY)
    assert len(first["cases"]) == len(hashes.STEPS)
    assert first == second
    assert hashes.differences(first, second) == []
    assert not {"seconds", "versions"} & next(iter(first["provenances"].values())).keys()


def test_a_coefficient_off_by_a_millionth_is_named(
    hashes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes.record(ONLY)
    plan = DDIM.plan

    def off(self: DDIM, process: Any, times: Tensor) -> Any:
        tableau = plan(self, process, times)
        first, *rest = tableau.rows
        return type(tableau)(
            (type(first)(first.t, first.A * (1 + 1e-6), first.B, first.C), *rest), tableau.parameterization
        )

    monkeypatch.setattr(DDIM, "plan", off)
    lines = hashes.differences(before, hashes.record(ONLY))
    assert [line for line in lines if line.endswith("/steps=20: samples")] == [
        f"differs: {ONLY}steps=20: samples"
    ]


def test_missing_new_and_changed_records_are_named_apart(hashes: ModuleType) -> None:
    before = hashes.record(ONLY)
    after = copy.deepcopy(before)
    gone, said, paid, refused = (f"{ONLY}steps={steps}" for steps in hashes.STEPS)
    after["cases"]["auto/more"] = after["cases"].pop(gone)
    after["provenances"]["other"] = {
        **after["provenances"][after["cases"][said]["provenance"]],
        "guiding": [],
    }
    after["cases"][said]["provenance"] = "other"
    after["cases"][paid]["nfe"] = 6
    after["cases"][refused] = {"error": "UsageError: no"}
    assert hashes.differences(before, after) == [
        f"missing: {gone}",
        "new: auto/more",
        f"differs: {said}: provenance in guiding",
        f"differs: {paid}: nfe 5 -> 6",
        f"differs: {refused}: samples gone; nfe 20 -> None; provenance gone; error None -> 'UsageError: no'",
    ]


def test_the_exit_status_says_whether_anything_differs(
    hashes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    record = {
        "machine": hashes.machine(),
        "cases": {"auto/a": {"error": "E: x"}},
        "provenances": {},
    }
    monkeypatch.setattr(hashes, "record", lambda only: record)
    monkeypatch.setattr(sys, "argv", ["sample_hashes.py", "--out", str(before)])
    hashes.main()
    monkeypatch.setattr(sys, "argv", ["sample_hashes.py", "--out", str(after), "--against", str(before)])
    with pytest.raises(SystemExit) as same:
        hashes.main()
    assert same.value.code == 0
    earlier = {**record, "machine": {**hashes.machine(), "cpu": "another"}, "cases": {}}
    before.write_text(json.dumps(earlier))
    with pytest.raises(SystemExit) as differing:
        hashes.main()
    assert differing.value.code == 1
    told = capsys.readouterr().out
    assert "new: auto/a" in told
    assert "note: cpu was 'another'" in told
