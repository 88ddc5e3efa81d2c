"""Made-up files in folders and zips."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest


@pytest.fixture(params=["folder", "zip"])
def place(request, tmp_path) -> Callable[[Mapping[str, bytes]], Path]:
    """Lays files out by their names, once in a folder and once in a zip."""

    def lay_out(files: Mapping[str, bytes]) -> Path:
        if request.param == "zip":
            root = tmp_path / "images.zip"
            with zipfile.ZipFile(root, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return root
        root = tmp_path / "images"
        root.mkdir()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root

    return lay_out
