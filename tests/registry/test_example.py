"""The third party's sampler in examples/: short, conformant, and drawing digits by name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "trilemma-angular"


@pytest.fixture
def angular(site):
    """The example as it would be installed: its package and the metadata of its pyproject."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (name, module), *_ = project["entry-points"]["trilemma"].items()
    source = (EXAMPLE / module / "__init__.py").read_text()
    site.install(project["name"], source, requires=project["dependencies"], entry_point=name, module=module)
    (site.path / f"{module}.py").unlink()
    (site.path / module).symlink_to(EXAMPLE / module)
    return site


def test_it_is_under_forty_lines_with_its_tests():
    files = [
        path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml") and "build" not in path.parts
    ]
    assert len(files) == 4
    assert sum(bool(line.strip()) for path in files for line in path.read_text().splitlines()) < 40


def test_it_registers_without_torch(angular):
    record = angular.records()["trilemma-angular/angular"]
    assert record["status"] == "ok"
    assert not record["imported_torch"]


def test_it_keeps_what_it_declares(angular):
    assert angular.trilemma("plugins", "check", "angular").returncode == 0
    arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE), str(EXAMPLE / "test_angular.py")]
    tests = angular.python("import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))", *arguments)
    assert tests.returncode == 0, tests.stdout
    assert " passed" in tests.stdout


def test_the_benchmark_of_samplers_takes_it_up_by_itself(angular):
    done = angular.python("from trilemma.bench.samplers import contenders; print(*contenders())")
    assert {"ddim", "angular"} <= set(done.stdout.split()), done.stderr
    assert "sscs" not in done.stdout.split()  # which no process of one component is for


def test_it_draws_digits_by_name(angular, tmp_path):
    out = tmp_path / "five.png"
    done = angular.trilemma(
        "sample",
        "mnist",
        "-n",
        "2",
        "--sampler",
        "angular",
        "--steps",
        "4",
        "--cond",
        "class=5",
        "--out",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 100
