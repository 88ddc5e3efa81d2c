"""Links, anchors and paths lead somewhere."""

from __future__ import annotations

import pytest
from documentation.blocks import ROOT, pages
from documentation.links import anchors, links, paths, why_broken
from documentation.table import ELSEWHERE


@pytest.mark.parametrize("page", pages())
def test_links_and_paths_exist(page):
    broken = [f"{page}:{line}: {why}" for line, target in links(page) if (why := why_broken(page, target))]
    if page not in ELSEWHERE:  # which name paths of a distribution that their test makes
        broken += [f"{page}:{line}: no {path}" for line, path in paths(page) if not (ROOT / path).exists()]
    assert not broken


def test_they_are_found():
    assert sum(len(list(links(page))) for page in pages()) > 50
    assert sum(len(list(paths(page))) for page in pages()) > 20


def test_what_is_broken_is_seen(tmp_path):
    (tmp_path / "a.md").write_text(
        "# One *thing*\n\n[b](b.md) [c](#one-thing) [d](#two) [e](../e.md)\n`docs/none.md`\n"
    )
    (tmp_path.parent / "e.md").write_text("")
    whys = [why_broken("a.md", target, tmp_path) for _, target in links("a.md", tmp_path)]
    assert [bool(why) for why in whys] == [True, False, True, True]
    assert list(paths("a.md", tmp_path)) == [(4, "docs/none.md")]
    assert anchors("# A\n\n# A\n\n```\n# B\n```\n") == {"a", "a-1"}
