"""Builds against the torch of the environment that is installed into, and editable installs that are found by path."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILDING = ROOT / "building"

pytestmark = pytest.mark.skipif(not BUILDING.is_dir(), reason="needs a checkout")


def backend(code: str, *, isolated: bool = False, **environment: str) -> str:
    """Returns the output of code that has the backend; isolated as pip isolates it, without installed packages."""
    if isolated:
        hide = (
            "import sys, sysconfig; sys.path = [p for p in sys.path if p != sysconfig.get_path('purelib')]; "
        )
    else:
        hide = ""
    code = f"import sys; sys.path.insert(0, {str(BUILDING)!r}); {hide}{code}"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment or None
    ).stdout.strip()


def test_an_isolated_build_finds_the_torch_it_is_installed_beside() -> None:
    import torch

    code = "from target import torch_folder; print(torch_folder())"
    folder = Path(torch.__file__).parent
    assert backend(code) == str(folder)
    assert backend(code, isolated=True) == str(folder)


def test_torch_is_asked_for_only_where_there_is_none(tmp_path: Path) -> None:
    code = "from target import torch_folder; print(torch_folder())"
    bare = f"import sysconfig; sysconfig.get_path = lambda scheme: {str(tmp_path)!r}; "
    assert backend(f"sys.path = [p for p in sys.path if 'site-packages' not in p]; {bare}{code}") == "None"
    asked = "import backend; backend.torch_folder = lambda: {}; print(backend._torch_where_missing())"
    assert backend(asked.format("None")) == "['torch>=2.11']"
    assert backend(asked.format(repr("somewhere"))) == "[]"
    assert backend(asked.format("None"), TRILEMMA_NATIVE="0") == "[]"


@pytest.mark.parametrize(
    ("version", "serves"), [("2.10.1", False), ("2.11.0a0+git1", True), ("2.13.0+cpu", True), ("3.0.0", True)]
)
def test_a_torch_that_the_installation_would_replace_is_not_built_against(
    tmp_path: Path, version: str, serves: bool
) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "version.py").write_text(f"__version__ = '{version}'\ndebug = False\n")
    (folder / "__init__.py").touch()
    found = str(folder) if serves else "None"
    code = f"import sysconfig; sys.path = [p for p in sys.path if 'site-packages' not in p]; place = {str(tmp_path)!r}"
    ask = "from target import torch_folder; print(torch_folder())"
    assert backend(f"{code}; sysconfig.get_path = lambda scheme: place; {ask}") == found
    assert backend(f"{code}; sys.path.insert(0, place); {ask}") == found


def test_a_wheel_holds_nothing_of_an_earlier_build(tmp_path: Path) -> None:
    for name in (
        "lib/trilemma/gone.py",
        "lib.linux/trilemma/gone.py",
        "bdist.linux/gone.py",
        "native-cp311/kept.o",
    ):
        file = tmp_path / "build" / name
        file.parent.mkdir(parents=True)
        file.touch()
    left = "sorted(str(p.relative_to(backend.ROOT)) for p in backend.ROOT.rglob('*.*') if p.is_file())"
    code = f"import backend, pathlib; backend.ROOT = pathlib.Path({str(tmp_path)!r})"
    code += f"; backend.build_meta.build_wheel = lambda *_: {left}; print(*backend.build_wheel('dist'))"
    assert backend(code) == "build/native-cp311/kept.o"


def test_an_editable_wheel_names_the_folders_of_the_packages(tmp_path: Path) -> None:
    wheel = tmp_path / "trilemma-0-0.editable-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("__editable__.trilemma-0.pth", "import __editable___trilemma_finder")
        archive.writestr("__editable___trilemma_finder.py", "")
        archive.writestr("trilemma-0.dist-info/METADATA", "Name: trilemma\n")
        archive.writestr("trilemma-0.dist-info/RECORD", "")
    backend(f"import backend, pathlib; backend._by_path(pathlib.Path({str(wheel)!r}))")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = archive.read("trilemma-0.dist-info/RECORD").decode().splitlines()
        paths = archive.read("trilemma.pth").decode().splitlines()
    assert names == {"trilemma.pth", "trilemma-0.dist-info/METADATA", "trilemma-0.dist-info/RECORD"}
    assert {line.split(",")[0] for line in record} == names
    assert {
        (Path(path) / package).is_dir()
        for path, package in zip(paths, ("trilemma", "trilemma_plugins"), strict=True)
    } == {True}
