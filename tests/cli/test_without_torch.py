"""Without torch, what needs none works; everything else ends in one line that says what to install."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from trilemma.cli import app

CODE = """
import sys
sys.modules["torch"] = None
from trilemma.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "mnist", "--out", "x.png"],
        ["eval", "mnist"],
        ["new-recipe", "photos"],
        ["train", "photos"],
        ["bench", "kernels"],
        ["plugins", "check", "ddim"],
        ["plugins", "page", "ddim"],
    ],
    ids=" ".join,
)
def test_torch_is_asked_for_in_one_line(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr == "error: the package torch is not installed; pip install torch\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins"], ["plugins", "show", "ddim"], ["doctor"]], ids=" ".join
)
def test_the_light_commands_work(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_module_is_named_by_its_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["torch>=2.11", "pillow", "tomli-w", "typer>=0.12", 'scikit-learn; extra == "digits"']
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    assert [app._requirement(name) for name in ("torch.nn", "PIL.Image", "tomli_w", "typer")] == [
        "torch",
        "pillow",
        "tomli-w",
        "typer",
    ]
    assert [app._requirement(name) for name in ("scikit_learn", "trilemma.nothing", "page", "")] == [None] * 4
