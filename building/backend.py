"""The build backend: that of setuptools, with the torch of the environment that the package is installed into.

pip builds in an environment of its own, which would take a torch of gigabytes from an index even where the package is
installed beside one. The libraries are built against the torch that they will run with, and one is asked for only where
there is none yet. Without native libraries none is needed.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  # the hooks that a frontend looks for
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from target import OLDEST_TORCH, native_choice, torch_folder

ROOT = Path(__file__).parents[1]
TORCH = "torch>={}.{}".format(*OLDEST_TORCH)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Returns what a wheel is built with, beside what pyproject.toml lists."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_torch_where_missing()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Returns what an editable install is built with, beside what pyproject.toml lists."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_torch_where_missing()]


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Writes a wheel of what the source tree holds now: setuptools keeps what an earlier build has put aside.

    The objects of the native libraries are kept, which CMake knows to be up to date or not.
    """
    for pattern in ("lib*", "bdist*"):
        for folder in (ROOT / "build").glob(pattern):
            shutil.rmtree(folder)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Writes an editable wheel whose packages are found by path, as type checkers and editors look for them."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _by_path(Path(wheel_directory) / name)
    return name


def _torch_where_missing() -> list[str]:
    return [TORCH] if native_choice() != "0" and torch_folder() is None else []


def _by_path(wheel: Path) -> None:
    """Replaces the import hook of setuptools, which only a running interpreter follows, by the folders' paths."""
    with zipfile.ZipFile(wheel) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    kept = {name: data for name, data in content.items() if not name.startswith("__editable__")}
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"][
        "where"
    ]
    kept["trilemma.pth"] = "".join(f"{ROOT / folder}\n" for folder in folders).encode()
    record = next(name for name in kept if name.endswith(".dist-info/RECORD"))
    del kept[record]
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in kept.items()]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
        archive.writestr(record, "\n".join([*lines, f"{record},,", ""]))


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
