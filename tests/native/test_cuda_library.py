"""The CUDA operators linked against a torch with CUDA, in a second environment; no GPU is needed to load them.

    TRILEMMA_CUDA_PYTHON=…/bin/python pytest tests/native/test_cuda_library.py

TRILEMMA_CUDA_ARCHS is one architecture by default, since none is run. cmake, ninja and pybind11 are those of this
environment.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("TRILEMMA_CUDA_PYTHON", "")

LIST = """
import sys, torch
torch.ops.load_library(sys.argv[1])
names = torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")
print(*sorted(name for name in names if name.startswith("trilemma::")))
"""


def bound() -> set[str]:
    """The operators that the CUDA library's sources register."""
    (listed,) = re.findall(r"set\(bindings (.*)\)", (ROOT / "csrc" / "cuda" / "CMakeLists.txt").read_text())
    sources = (ROOT / "csrc" / "torch" / f"{name}.cpp" for name in listed.split())
    names = {name for source in sources for name in re.findall(r'library\.impl\("(\w+)"', source.read_text())}
    return {f"trilemma::{name}" for name in names}


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-4000:]}")
    return done.stdout


def test_the_sources_name_the_operators() -> None:
    assert {"trilemma::linear_step_replay", "trilemma::group_norm_act", "trilemma::attention"} <= bound()


@pytest.mark.skipif(
    not PYTHON, reason="TRILEMMA_CUDA_PYTHON names no python of an environment with a CUDA torch"
)
def test_the_cuda_library_links_loads_and_lists_its_operators(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    version = run(PYTHON, "-c", "import torch; print(torch.__version__, torch.version.cuda)").split()
    assert version[1] != "None", f"the torch of {PYTHON} has no CUDA"
    assert tuple(int(part) for part in version[0].split(".")[:2]) >= (2, 11), version[0]

    # pybind11 alone: the rest of this environment would hide that torch.
    (tmp_path / "pybind11").symlink_to(Path(pybind11.__file__).parent)
    build = ROOT / "build" / "cuda-link"
    run(
        *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DTRILEMMA_CUDA=1"),
        f"-DTRILEMMA_CUDA_ARCHS={os.environ.get('TRILEMMA_CUDA_ARCHS', '90')}",
        f"-DPython_EXECUTABLE={PYTHON}",
        environment={"PYTHONPATH": str(tmp_path)},
    )
    run("cmake", "--build", str(build), "--target", "_ops_cuda")
    (library,) = build.rglob("_ops_cuda.*so")
    # Of its own operators alone, before any schema is known.
    listed = run(PYTHON, "-c", LIST, str(library)).split()
    assert set(listed) == bound()
