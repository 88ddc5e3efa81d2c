"""docs/results/install.md is what its record says, and tells nothing of the machine that made it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_benchmark", ROOT / "benchmarks" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_record(install: ModuleType) -> None:
    record = json.loads((RESULTS / "install.json").read_text())
    text = (RESULTS / "install.md").read_text()
    assert text == install.page(record)
    assert "/tmp" not in text
    assert {way for way in record["ways"] if not way.startswith("python ")} == {
        "torch_alone",
        "from_a_checkout",
        "wheel",
        "editable",
        "no_compiler",
    }


def test_what_pip_took_is_counted_once(install: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "local-1-py3-none-any.whl"
    wheel.write_bytes(b"0" * 500_000)
    log = f"""
        1 Downloading far-1.0-py3-none-any.whl.metadata (5.0 kB)
        1   Using cached far-1.0-py3-none-any.whl (250 kB)
        1 Downloading https://example.org/packages/large-2-py3-none-any.whl (1.5 GB)
        1 Processing ./src
        1 Processing {wheel}
        1   Using cached far-1.0-py3-none-any.whl (250 kB)
    """
    assert install.taken(log) == {
        "far-1.0-py3-none-any.whl": 0.25,
        "large-2-py3-none-any.whl": 1500,
        wheel.name: 0.5,
    }
