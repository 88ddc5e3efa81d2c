"""Warnings on the command line: one line each, without the place in the code."""

from __future__ import annotations

import warnings

import pytest

from trilemma.cli.app import main


def test_a_warning_is_one_line_and_leaves_the_result(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = warnings.showwarning
    arguments = ["sample", "mnist", "-n", "1", "--sampler", "pndm", "--steps", "4", "--out", "x.png", "-q"]

    def warn(*_: object) -> None:
        warnings.warn("the steps are few;\n  give more " + "of them " * 100, UserWarning, stacklevel=1)

    monkeypatch.setattr("trilemma.engine.resolve.warn", warn)
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: the steps are few; give more")
    assert said.count("\n") == 1
    assert len(said) <= 300
    assert ".py" not in said
    assert warnings.showwarning is shown
    assert (tmp_path / "x.png").is_file()
