"""docs/publish.md, followed as written: every command and every file, one after another.

Three things are done otherwise, because a test has no network and may not change the environment it runs in:

- `pip install -e` puts the distribution on the path of the commands as an editable install would (`Site`);
- `python -m build` builds in this environment instead of a fresh one, and `pip install` of the wheel goes, without
  dependencies, to a folder that stands for an environment without the sources;
- twine is neither installed nor run; what it would upload must exist.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
import types
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import trilemma
from trilemma.testing.exact_processes import AngleProcess

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "publish.md"
PROGRAMS = ("trilemma", "pytest", "mypy", "ruff")
WHEEL = "dist/trilemma_ab2-0.1.0-py3-none-any.whl"


def instructions() -> Iterator[tuple[str, str]]:
    """What the page asks for, in order: ("run", command), or ("write", source with its path in the first line)."""
    for match in re.finditer(r"^```python\n(.*?)^```$|^    (\S[^\n]*)$", GUIDE.read_text(), re.M | re.S):
        source, line = match.groups()
        if source is not None:
            yield "write", source
        elif not line.startswith("z_s/r_s = "):  # the method's equation
            yield "run", line


@dataclass
class Reader:
    """Somebody who follows the page.

    Attributes:
        site: where their `pip install -e` puts distributions.
        cwd: their working directory.
        stranger: where their `pip install` of a wheel puts it; once it is used, what is in `site` is not.
    """

    site: object
    cwd: Path
    stranger: object
    said: dict[str, str] = field(default_factory=dict)

    def write(self, source: str) -> None:
        first, _, text = source.partition("\n")
        path = self.cwd / first.removeprefix("# ")
        assert path.exists(), f"{path} is to be changed and is not there"
        path.write_text(text)

    def run(self, line: str) -> None:
        match shlex.split(line):
            case ["cd", folder]:
                self.cwd = self.cwd / folder
                assert self.cwd.is_dir()
            case ["pip", "install", "-e", ".[dev]"]:
                self.site.install_project(self.cwd)
            case ["pip", "install", wheel] if wheel.endswith(".whl"):
                self._module(
                    "pip", "install", "--no-deps", "--no-index", f"--target={self.stranger.path}", wheel
                )
                self.site = self.stranger
            case ["python", "-m", "build"]:
                self._module("build", "--no-isolation")
            case ["pip", "install", "twine"]:
                pass
            case ["twine", "upload", *files]:
                assert all((self.cwd / file).is_file() for file in files)
            case [program, *arguments] if program in PROGRAMS:
                self.said[line] = self._module(program, *arguments)
            case _:
                pytest.fail(f"the page asks for {line!r}, which this test cannot run")

    def _module(self, name: str, *arguments: str) -> str:
        place = Path(trilemma.__file__).parents[1]
        # mypy asks no PYTHONPATH, and finds by itself what is installed.
        typed = {} if place.name == "site-packages" else {"MYPYPATH": str(place)}
        done = self.site.module(name, *arguments, cwd=self.cwd, env=typed)
        assert done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, ("build", "mypy", "ruff"))), reason="needs build, mypy and ruff")
def test_the_guide_works_as_written(site, tmp_path):
    for folder in ("here", "installed"):
        (tmp_path / folder).mkdir()
    reader = Reader(site, tmp_path / "here", type(site)(tmp_path / "installed"))
    for what, text in instructions():
        getattr(reader, what)(text)

    sampler = (reader.cwd / "src" / "trilemma_ab2" / "sampler.py").read_text()
    assert "class Ab2Sampler" in sampler
    assert "Bashforth and Adams, 1883" in reader.said["trilemma plugins show ab2"]
    assert (reader.cwd / "fives.png").stat().st_size > 100
    with zipfile.ZipFile(reader.cwd / WHEEL) as wheel:
        assert {"trilemma_ab2/sampler.py", "trilemma_ab2/py.typed"} <= set(wheel.namelist())
        assert wheel.read("trilemma_ab2/sampler.py").decode() == sampler


def test_the_page_is_read_whole():
    asked = [text.split()[0] for what, text in instructions() if what == "run"]
    assert len(asked) > 10
    assert {"trilemma", "cd", "pip", "pytest", "mypy", "ruff", "python", "twine"} == set(asked)
    assert sum(what == "write" for what, _ in instructions()) == 2


@pytest.fixture
def ab2(monkeypatch):
    """The module that the page writes."""
    source = next(text for what, text in instructions() if what == "write")
    module = types.ModuleType("trilemma_ab2_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source, module.__dict__)
    return module


def test_its_steps_integrate_a_line_exactly(ab2):
    """z_s/r_s = z_t/r_t + ∫ g dφ for g = v/r linear in φ, over times that jump; the first step only for a constant."""
    process, times = AngleProcess(), torch.tensor([0.95, 0.9, 0.6, 0.55, 0.2, 0.15], dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(times)
    r, angle = torch.hypot(alpha, sigma), torch.atan2(sigma, alpha)
    for n, row in enumerate(ab2.Ab2Sampler().plan(process, times).rows):
        assert math.isclose(row.A, float(r[n + 1] / r[n]))
        for power in (0, 1) if n else (0,):
            change = sum(b * float(r[n - lag] * angle[n - lag] ** power) for lag, b in row.B) / float(
                r[n + 1]
            )
            exact = (angle[n + 1] ** (power + 1) - angle[n] ** (power + 1)) / (power + 1)
            assert change == pytest.approx(float(exact), abs=1e-14)
