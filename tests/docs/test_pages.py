"""Every page, followed as written: each command, each block of Python, one after another.

TRILEMMA_DOCS_PYTHON names another interpreter to follow them in, such as that of a clean environment with a wheel.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import pytest
from documentation.blocks import ROOT, pages, steps
from documentation.following import Follower, Reader
from documentation.table import ELSEWHERE

from conftest import take_photos

FOLDERS = ("plugins", "docs", "examples", "benchmarks")
FOLLOWED = [
    page for page in pages() if page not in ELSEWHERE and any(step.kind != "text" for step in steps(page))
]


@pytest.fixture(scope="session")
def reader(mnist_stand_in) -> Iterator[Reader]:
    made = Reader(os.environ.get("TRILEMMA_DOCS_PYTHON", sys.executable), mnist_stand_in)
    yield made
    made.close()


@pytest.fixture
def follower(reader, tmp_path) -> Follower:
    """Somebody in a checkout of their own."""
    here = tmp_path / "trilemma"
    here.mkdir()
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "results")
        shutil.copytree(ROOT / folder, here / folder, ignore=ignored)
    take_photos(here / "photos")
    site = tmp_path / "site"
    site.mkdir()
    return Follower(reader, here, site)


@pytest.mark.parametrize("page", FOLLOWED)
def test_the_page_works_as_written(page, follower):
    follower.follow(page)
    assert follower.done or follower.left
