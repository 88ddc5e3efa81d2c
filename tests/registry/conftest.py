"""Really installed plugins: tiny distributions in a folder that a subprocess finds on its path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GOOD = """
from trilemma.registry import SamplerSpec, hookimpl

@hookimpl
def trilemma_register(registry):
    registry.sampler(SamplerSpec(name="{name}", target="trilemma_plugins.ddim.sampler:DDIM", summary="fine"))
"""


@dataclass
class Site:
    """A folder of distributions, put on the path of a fresh interpreter."""

    path: Path

    def install(
        self,
        distribution: str,
        source: str,
        *,
        requires: Sequence[str] = (),
        entry_point: str | None = None,
        module: str | None = None,
    ) -> None:
        """A distribution with one module (`source`) and an entry point that names it."""
        module = module or distribution.replace("-", "_")
        info = self.path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", "Version: 1.2"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[trilemma]\n{entry_point or module} = {module}\n")
        (self.path / f"{module}.py").write_text(source)

    def install_project(self, folder: Path) -> None:
        """The distribution in a folder with pyproject.toml and src/, as an editable install leaves it."""
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        ((name, module),) = project["entry-points"]["trilemma"].items()
        package = module.partition(".")[0]
        self.install(project["name"], "", requires=project["dependencies"], entry_point=name, module=module)
        (self.path / f"{module}.py").unlink()
        (self.path / package).symlink_to(folder / "src" / package)

    def python(
        self, code: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs code with these distributions installed."""
        return self._run(["-c", textwrap.dedent(code), *arguments], env)

    def trilemma(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line with these distributions installed."""
        return self.module("trilemma", *arguments, env=env)

    def module(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a module as a program with these distributions installed."""
        return self._run(["-m", name, *arguments], env, cwd)

    def records(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
        """What `trilemma plugins --json` says of each plugin, by distribution/entry point."""
        done = self.trilemma(*arguments, "plugins", "--json", env=env)
        assert done.returncode == 0, done.stderr
        return {
            f"{record['distribution']}/{record['plugin']}": record
            for record in json.loads(done.stdout)["plugins"]
        }

    def _run(
        self, command: list[str], env: Mapping[str, str] | None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TRILEMMA_")}
        path = os.pathsep.join(filter(None, [str(self.path), os.environ.get("PYTHONPATH", "")]))
        return subprocess.run(
            [sys.executable, *command],
            env={**inherited, "PYTHONPATH": path, "COLUMNS": "300", **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def good() -> str:
    """Source of a plugin that registers one sampler; format it with its `name`."""
    return GOOD
