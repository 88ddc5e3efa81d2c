"""Follows a page in a folder, through a reader in another process."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from documentation.blocks import ROOT, Step, steps
from documentation.table import NOT_RUN, REPLACEMENTS

READER = Path(__file__).with_name("reader.py")

RECIPE = '''
import tomllib, tomli_w, tempfile
from pathlib import Path
import trilemma
from trilemma.train import read_recipe
from trilemma.train.stages import read_stages

rest = {{"steps": 1, "dataset": {{"spec": "mnist"}}, "process": {{"spec": "vp"}}, "objective": {{"spec": "simple"}}}}
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder, "recipe.toml")
    place.write_text(tomli_w.dumps({{**rest, **tomllib.loads("""{text}""")}}))
    stages = read_stages(place)
    recipe = None if stages else read_recipe(place, [])
if recipe is not None:
  process = trilemma.process(recipe.process.spec)
  trilemma.objective(recipe.objective.spec)
  trilemma.denoiser(recipe.denoiser.spec, process=process, shape=(1, 28, 28),
                    parameterization=recipe.denoiser.parameterization, **recipe.denoiser.options)
'''


class Reader:
    """A process that runs commands and blocks; see reader.py.

    Args:
        python: interpreter to run them in.
        data: what TRILEMMA_DATA says.
    """

    def __init__(self, python: str, data: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TRILEMMA_")}
        if python != sys.executable:
            kept.pop("PYTHONPATH", None)
        environment = {**kept, "TRILEMMA_DATA": str(data), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [python, str(READER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=data,
        )

    def ask(self, request: dict[str, Any]) -> tuple[int, str]:
        """Returns the exit code and all that was said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["said"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


@dataclass
class Follower:
    """Somebody who does what a page says.

    Attributes:
        reader: runs what it asks for.
        cwd: the working directory.
        site: where `pip install` of a folder puts distributions.
        done: the steps that were run, with what they said.
        left: those that were not, by the reason.
    """

    reader: Reader
    cwd: Path
    site: Path
    done: list[tuple[Step, str]] = field(default_factory=list)
    left: list[tuple[Step, str]] = field(default_factory=list)

    def follow(self, page: str) -> None:
        for step in steps(page):
            getattr(self, f"_{step.kind}")(step)

    def _command(self, step: Step) -> None:
        for entry in NOT_RUN:
            if entry.fits(step.page, step.text):
                self.left.append((step, entry.reason))
                return
        argv = shlex.split(replaced(step))
        match argv:
            case ["cd", folder]:
                self.cwd = self.cwd / folder
                assert self.cwd.is_dir(), f"{step.place}: {step.text}: no such folder"
            case ["pip", "install", *options, requirement]:
                self._install(step, options, requirement)
            case _:
                self._ask(step, argv=argv)
                self._expect_output(step, argv)

    def _expect_output(self, step: Step, argv: list[str]) -> None:
        """A command that does nothing ends well too."""
        assert self.done[-1][1].strip(), f"{step.place}: {step.text} said nothing"
        for option, value in itertools.pairwise(argv):
            if option == "--out":
                assert (self.cwd / value).exists(), f"{step.place}: {step.text} wrote no {value}"

    def _python(self, step: Step) -> None:
        self._ask(step, source=replaced(step))

    def _toml(self, step: Step) -> None:
        """A part of a recipe: it is read, and its components are made, as `trilemma train` would."""
        self._ask(step, source=RECIPE.format(text=step.text))

    def _write(self, step: Step) -> None:
        excerpt = ROOT / step.file
        if excerpt.is_file():
            assert step.text in excerpt.read_text(), f"{step.place} is no excerpt of {step.file} any more"
        else:
            path = self.cwd / step.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
        self.done.append((step, ""))

    def _text(self, step: Step) -> None:
        assert step.language or not looks_like_python(step.text), (
            f"{step.place}: {step.text!r} is Python in an indented block; fence it, so that it is run"
        )

    def _install(self, step: Step, options: list[str], requirement: str) -> None:
        """Puts a distribution on the path as an editable install would; from an index, only what is here."""
        folder = self.cwd / requirement
        if (folder / "pyproject.toml").is_file():
            assert set(options) <= {"-e", "--no-build-isolation", "--no-deps"}, step.place
            install_project(self.site, folder)
            self.left.append((step, "installed by a link: a test has no network"))
            return
        extra = re.fullmatch(r"(?:trilemma|\.)\[([\w,]+)\]|[\w-]+", requirement)
        assert extra, f"{step.place}: cannot install {requirement}"
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set((extra[1] or "").split(",")) <= {"", *known}, f"{step.place}: no extra {extra[1]}"
        self.left.append((step, "a test has no network"))

    def _ask(self, step: Step, **what: Any) -> None:
        request = {
            "session": step.page,
            "place": step.place,
            "cwd": str(self.cwd),
            "path": [str(self.site)],
            **what,
        }
        code, said = self.reader.ask(request)
        assert code == 0, f"{step.place}: {step.text}\nended with {code}:\n{said}"
        self.done.append((step, said))


def replaced(step: Step) -> str:
    """Returns what a test runs for a step."""
    text = step.text
    for entry in REPLACEMENTS:
        if entry.fits(step.page, step.text):
            text = re.sub(entry.pattern, entry.by, text)
    return text


def looks_like_python(line: str) -> bool:
    return bool(re.search(r"^(from \S+ import|import |def |class |@\w)|\w\.\w+\(.*|= [A-Z]\w*\($", line))


def install_project(site: Path, folder: Path) -> None:
    """Puts the distribution of a folder with pyproject.toml on the path `site`, by links to its packages."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["trilemma"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{name} = {module}\n" for name, module in points.items()]
    (info / "entry_points.txt").write_text("[trilemma]\n" + "".join(lines))
    for module in points.values():
        package = module.partition(".")[0]
        place = next(place for place in (folder / "src" / package, folder / package) if place.is_dir())
        (site / package).symlink_to(place.resolve())
