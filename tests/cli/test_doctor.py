"""trilemma doctor says what is there and why the rest is not."""

from __future__ import annotations

import json
import platform

import pytest
import torch

from trilemma.cli import diagnosis
from trilemma.cli.app import main
from trilemma.version import __version__


@pytest.fixture
def report(capsys):
    def run(*arguments):
        assert main(["doctor", "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_versions(report):
    versions = report("--no-torch")["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["trilemma"] == __version__
    assert versions["torch"] == torch.__version__


def test_every_operator_names_its_backend(report):
    native = report()["native"]
    assert {"linear_step", "keyed_normal", "group_norm_act", "attention"} <= set(native["backends"])
    for explanation in native["backends"].values():
        assert "runs on native" in explanation or "not native" in explanation


def test_a_native_library_names_its_build_and_instruction_set(report):
    native = report("--no-torch")["native"]
    if native["library"] is None:
        pytest.skip("the native library is not built here")
    assert native["isa"] in native["build"]["isas"]


def test_a_missing_native_library_is_a_problem(report, monkeypatch):
    monkeypatch.setattr(diagnosis, "_libraries", list)
    assert "install a C++ compiler" in report("--no-torch")["problems"]["native: library"]


@pytest.mark.parametrize(
    ("built", "driver", "devices", "reason"),
    [
        (False, None, 0, "this torch is a build for the CPU, and there is no NVIDIA driver"),
        (False, "12.4", 1, "this torch is a build for the CPU; install a CUDA build"),
        (True, None, 0, "there is no NVIDIA driver"),
        (True, "12.4", 0, "the driver shows no device"),
        (True, "12.4", 1, ""),
    ],
)
def test_why_cuda_is_not_there(built, driver, devices, reason):
    found = diagnosis._why_not(built, driver, devices)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_cuda_is_usable_exactly_where_torch_says_so(report):
    cuda = report()["cuda"]
    assert cuda["usable"] is torch.cuda.is_available()
    assert cuda["why"]


def test_the_data_folder_is_looked_at(report, monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    assert report("--no-torch")["data"] == {"TRILEMMA_DATA": str(tmp_path), "holds": ["mnist"]}
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "none"))
    assert "is no folder" in report("--no-torch")["problems"]["data: TRILEMMA_DATA"]


def test_the_report_for_people_has_the_same_sections(capsys):
    assert main(["doctor", "--no-torch"]) == 0
    said = capsys.readouterr().out
    sections = [line for line in said.splitlines() if not line.startswith(" ")]
    assert sections == ["versions", "native", "cuda", "data", "plugins", "problems"]
