"""What a source distribution and a wheel hold. CI also builds the native wheel and runs it in a clean environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("build") is None, reason="needs the package build"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout"),
]

WITHOUT_NATIVE = {**os.environ, "TRILEMMA_NATIVE": "0"}
# The tag of the wheel that setup.py would build.
TAG = """
import contextlib, io
import setuptools
from distutils.core import run_setup
with contextlib.redirect_stdout(io.StringIO()):
    distribution = run_setup("setup.py", stop_after="init")
    command = distribution.get_command_obj("bdist_wheel")
    command.ensure_finalized()
print(*command.get_tag())
"""


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The names in an sdist of the tracked files, and in a wheel built from that sdist where no compiler works."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--skip-dependency-check",
            "--outdir",
            str(out),
            ".",
        ],
        cwd=source,
        check=True,
        capture_output=True,
        env={**os.environ, "TRILEMMA_NATIVE": "auto", "CXX": "/bin/false"},
    )
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        wheel = set(archive.namelist())
    return sdist, wheel


def test_sdist_holds_all_that_a_build_needs(built: tuple[set[str], set[str]]) -> None:
    sdist, _ = built
    needed = tracked("csrc", "core", "plugins", "CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE")
    assert len(needed) > 50
    assert needed - sdist == set()
    assert not [name for name in sdist if name.endswith((".so", ".pyc"))]


def test_wheel_holds_the_packages_and_their_data(built: tuple[set[str], set[str]]) -> None:
    _, wheel = built
    modules = {
        name
        for name in tracked("core", "plugins")
        if name.endswith((".py", ".toml", ".safetensors", ".template", ".typed"))
    }
    assert {name.partition("/")[2] for name in modules} - wheel == set()
    assert not [name for name in wheel if name.endswith(".so")]
    assert not [name for name in wheel if name.startswith(("tests", "csrc", "core", "plugins", "benchmarks"))]


def test_the_libraries_load_on_systems_older_than_the_compiler() -> None:
    """GCC 12 and later bring helpers of half floats in their libgcc_s, which older systems lack."""
    libraries = list((ROOT / "core" / "trilemma").glob("_*.so"))
    versions = {int(v) for path in libraries for v in re.findall(rb"\0GCC_(\d+)\.", path.read_bytes())}
    assert not libraries or max(versions, default=0) < 12, "build them again"


def test_a_wheel_without_native_libraries_is_for_any_python(tmp_path: Path) -> None:
    names = subprocess.run(
        [sys.executable, "-c", TAG], cwd=ROOT, check=True, capture_output=True, text=True, env=WITHOUT_NATIVE
    ).stdout.split()
    assert names == ["py3", "none", "any"]


def test_an_unknown_wish_for_native_code(tmp_path: Path) -> None:
    failed = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TRILEMMA_NATIVE": "yes"},
    )
    assert failed.returncode != 0
    assert failed.stderr.splitlines()[-1] == "TRILEMMA_NATIVE=yes is unknown; choose auto, 0 or 1"
