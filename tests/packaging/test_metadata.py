"""The files that say the same thing twice say the same."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements() -> dict[str, Requirement]:
    project = PYPROJECT["project"]
    lists = [PYPROJECT["build-system"]["requires"], project["dependencies"]]
    lists += project["optional-dependencies"].values()
    parsed = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(one.name): one for one in parsed if one.name != PYPROJECT["project"]["name"]}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    for name, requirement in requirements().items():
        assert name in pins(), f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pins()[name]), f"{requirement} forbids {pins()[name]}"


def test_torch_is_pinned_for_cpu_and_cuda_alike() -> None:
    assert pins()["torch"] == "2.13.0"
    assert requirements()["torch"].specifier.contains("2.11.0")


def test_makefile_installs_what_the_build_needs() -> None:
    found = re.search(r"^build_requirements := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert set(found[1].split()) == {
        Requirement(text).name for text in PYPROJECT["build-system"]["requires"]
    } | {"torch"}


@pytest.mark.parametrize(("family", "target"), PYPROJECT["project"]["entry-points"]["trilemma"].items())
def test_every_entry_point_exists(family: str, target: str) -> None:
    assert target == f"trilemma_plugins.{family}.register"
    assert find_spec(target) is not None


def test_every_family_is_an_entry_point() -> None:
    families = {path.parent.name for path in (ROOT / "plugins" / "trilemma_plugins").glob("*/register.py")}
    assert families == set(PYPROJECT["project"]["entry-points"]["trilemma"])
