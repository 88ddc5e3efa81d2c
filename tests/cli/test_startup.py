"""Light commands import nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "PIL", "accelerate", "safetensors", "sklearn", "pydantic"}

CODE = """
import json, sys
from trilemma.cli.app import main
code = main(sys.argv[1:])
print("\\n" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "list"],
        ["models"],
        ["doctor", "--no-torch"],
    ],
)
def test_light_commands_import_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not HEAVY & set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ["plugins", "show", "unet"],
        ["models", "mnist"],
        ["sample", "--help"],
        ["train", "--help"],
        ["eval", "--help"],
    ],
)
def test_options_are_shown_without_torch(arguments):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert "torch" not in modules


@pytest.mark.parametrize("module", ["trilemma", "trilemma.cli.app"])
def test_as_a_module_it_does_what_the_command_does(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("trilemma ")
    nothing = subprocess.run(
        [sys.executable, "-m", module, "train"], capture_output=True, text=True, check=False
    )
    assert nothing.returncode == 2
    assert "Missing argument" in nothing.stderr
