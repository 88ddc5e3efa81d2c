"""The table of what is done otherwise says nothing that no page needs."""

from __future__ import annotations

import re

import pytest
from documentation.blocks import ROOT, pages, steps
from documentation.table import ELSEWHERE, NOT_RUN, REPLACEMENTS

ALL_STEPS = [step for page in pages() for step in steps(page)]
RUN = [step for step in ALL_STEPS if step.kind in ("command", "python")]


@pytest.mark.parametrize("entry", [*REPLACEMENTS, *NOT_RUN], ids=lambda entry: entry.pattern)
def test_each_entry_fits_something(entry):
    assert entry.reason
    assert any(entry.fits(step.page, step.text) for step in RUN), f"no page has {entry.pattern!r} any more"


def test_pages_that_another_test_follows_are_followed_there():
    for page, test in ELSEWHERE.items():
        name = page.rpartition("/")[2]
        assert name in (ROOT / test).read_text()


def test_what_make_is_asked_for_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    asked = {word for step in RUN if step.text.startswith("make ") for word in step.text.split()[1:]}
    assert asked
    assert asked <= targets


def test_the_pages_are_read():
    kinds = {
        kind: sum(step.kind == kind for step in ALL_STEPS) for kind in ("command", "python", "toml", "write")
    }
    assert kinds["command"] > 60
    assert kinds["python"] > 10
    assert kinds["toml"]
    assert kinds["write"]
    assert any(step.text.startswith("TRILEMMA_NATIVE=0 pip ") for step in RUN)
