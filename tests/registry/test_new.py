"""trilemma plugins new: what it writes works at once, and what it cannot write it leaves no trace of."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from trilemma.cli import app
from trilemma.cli.new_plugin import STARTERS, write_distribution

ROOT = Path(__file__).resolve().parents[2]
KINDS = [starter.kind for starter in STARTERS]

CHECK = """
import sys
from trilemma.cli.app import main
for name in sys.argv[1:]:
    assert main(["plugins", "check", name, "--json"]) == 0, name
    print("====")
"""


@pytest.fixture(scope="module")
def projects(tmp_path_factory) -> dict[str, Path]:
    """One distribution of every kind, by its kind."""
    folder = tmp_path_factory.mktemp("projects")
    return {kind: write_distribution(f"my-{kind}", kind, folder / f"my-{kind}")[1] for kind in KINDS}


@pytest.fixture
def installed(site, projects):
    for folder in projects.values():
        site.install_project(folder)
    return site


def test_every_kind_loads_without_torch(installed):
    for address, record in installed.records().items():
        assert record["status"] == "ok", record
        assert not record["imported_torch"], address
    assert {f"my-{kind}/my-{kind}" for kind in KINDS} <= set(installed.records())


def test_every_kind_passes_its_checks(installed):
    done = installed.python(CHECK, *(f"my-{kind}" for kind in KINDS))
    assert done.returncode == 0, done.stdout + done.stderr
    for kind, said in zip(KINDS, done.stdout.split("===="), strict=False):
        records = json.loads(said)
        assert len(records) >= 2
        assert {record["status"] for record in records} == {"passed"}, (kind, records)


def test_the_tests_of_every_kind_pass(installed, projects):
    folders = map(str, projects.values())
    done = installed.module("pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *folders)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="needs mypy")
def test_every_kind_is_typed(projects, tmp_path):
    path = os.pathsep.join([str(ROOT / "core"), *(str(folder / "src") for folder in projects.values())])
    config = projects["sampler"] / "pyproject.toml"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--config-file={config}", f"--cache-dir={tmp_path}"]
        + [
            str(file)
            for folder in projects.values()
            for file in folder.rglob("*.py")
            if "build" not in file.parts
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MYPYPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("ruff") is None, reason="needs ruff")
@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_every_kind_is_in_style(projects, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", *map(str, projects.values())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_says_what_to_do_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.main(["plugins", "new", "Trilemma_Two.Step", "--kind", "sampler"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  cd Trilemma_Two.Step",
        '  pip install -e ".[dev]"',
        "  trilemma plugins check two-step",
        "  pytest && mypy && ruff check .",
    ]
    source = tmp_path / "Trilemma_Two.Step" / "src" / "trilemma_two_step" / "sampler.py"
    assert "class TwoStepSampler(Sampler):" in source.read_text()


LONG = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", LONG, "-".join(["abcd"] * 8)])
def test_lines_fit_for_names_of_up_to_forty_letters(kind, name, tmp_path):
    assert len(name) <= 40
    folder = write_distribution(name, kind, tmp_path / "made")[1]
    for file in folder.rglob("*.py"):
        assert max(map(len, file.read_text().splitlines()), default=0) <= 110, file
    if find_spec("ruff"):
        for arguments in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *arguments, "--no-cache", str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_links_no_package_index(kind, tmp_path):
    text = (write_distribution("mine", kind, tmp_path / "made")[1] / "README.md").read_text()
    assert "Trilemma" in text
    assert "://" not in text


def test_the_help_names_every_kind(capsys):
    assert app.main(["plugins", "new", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"What it brings: {', '.join(KINDS)}." in said


def test_it_imports_no_torch(tmp_path):
    code = "import sys; from trilemma.cli.app import main; code = main(); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "plugins", "new", "light", "--kind", "sampler", "--path", str(tmp_path)],
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-x", "--kind", "sampler"], "No such option"),
        (["2m", "--kind", "sampler"], "cannot name a distribution"),
        (["two step", "--kind", "sampler"], "cannot name a distribution"),
        (["mine-", "--kind", "sampler"], "cannot name a distribution"),
        (["trilemma-2m", "--kind", "sampler"], "would name a component '2m'"),
        (["Class", "--kind", "sampler"], "is a word of Python's grammar"),
        (["json", "--kind", "sampler"], "is a module of Python's own"),
        (["torch", "--kind", "sampler"], "is a module of the installed torch"),
        (["trilemma-plugins", "--kind", "sampler"], "is Trilemma's own package"),
        (["ddim", "--kind", "sampler"], "'ddim' is the name of the built-in sampler; choose another name"),
        (["trilemma-DDIM", "--kind", "process"], "'ddim' is the name of the built-in sampler"),
        (["mine", "--kind", "samplr"], "unknown kind 'samplr'; did you mean 'sampler'? there is a start for"),
        (["mine", "--kind", "model"], "unknown kind 'model'; "),
        (["mine"], "Missing option '--kind'"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.main(["plugins", "new", *arguments]) == 2
    said, error = capsys.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert message.lower() in error.lower()
    assert not list(tmp_path.iterdir())


def test_the_name_of_another_distributions_component_is_refused(site, good, tmp_path):
    site.install("other", good.format(name="taken"))
    done = site.trilemma("plugins", "new", "taken", "--kind", "sampler", "--path", str(tmp_path / "taken"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "'taken' is the name of the installed other's sampler; choose another name" in done.stderr
    assert not (tmp_path / "taken").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("ten years")
    assert app.main(["plugins", "new", "mine", "--kind", "guidance"]) == 2
    assert "error: mine is not empty; give --path a folder" in capsys.readouterr().err
    assert app.main(["plugins", "new", "mine", "--kind", "guidance", "--path", "mine/thesis.tex"]) == 2
    assert "thesis.tex is a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_an_empty_working_directory_is_filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert app.main(["plugins", "new", "mine", "--kind", "kernel", "--path", "."]) == 0
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        "README.md",
        "pyproject.toml",
        "src",
        "tests",
    ]


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_half_way_leaves_nothing(there, tmp_path, monkeypatch, capsys):
    target = tmp_path / "mine"
    if there:
        target.mkdir()
    writing = importlib.import_module("trilemma.cli.new_plugin.writing")
    files = writing._files

    def full(*arguments):
        yield next(files(*arguments))
        yield "src/mine/bad.py", None  # what cannot be written stands for a disk that is full

    monkeypatch.setattr(writing, "_files", full)
    assert app.main(["plugins", "new", "mine", "--kind", "sampler", "--path", str(target)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.rglob("*")) == ([target] if there else [])
