"""What a page points at: links with their anchors, and paths of the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from documentation.blocks import ROOT

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?<![\w/.~-])(?:core|plugins|csrc|tests|docs|benchmarks|examples|cmake)/[\w./-]*\w")


def links(page: str, root: Path = ROOT) -> Iterator[tuple[int, str]]:
    """Yields the line and the target of every link of a page that is not to another machine."""
    for number, line in _prose(page, root):
        for found in _LINK.finditer(line):
            if not found[1].startswith(("http://", "https://", "mailto:")):
                yield number, found[1]


def why_broken(page: str, target: str, root: Path = ROOT) -> str:
    """Returns why a link of a page leads nowhere; "" where it leads somewhere."""
    path, _, anchor = target.partition("#")
    place = (root / page).parent / path if path else root / page
    if not place.exists():
        return f"there is no {path}"
    if root.resolve() not in [place.resolve(), *place.resolve().parents]:
        return f"{path} is outside of the repository"
    if anchor and anchor not in anchors(place.read_text(encoding="utf-8")):
        return f"{path or 'the page'} has no heading #{anchor}"
    return ""


def anchors(text: str) -> set[str]:
    """Returns the anchors that the headings of a page get."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def paths(page: str, root: Path = ROOT) -> Iterator[tuple[int, str]]:
    """Yields the line and the name of every path of the repository that a page names, links aside."""
    for number, line in enumerate((root / page).read_text(encoding="utf-8").splitlines(), 1):
        for found in _PATH.finditer(re.sub(r"https?://\S+", "", _LINK.sub("", line))):
            yield number, found[0]


def _prose(page: str, root: Path) -> Iterator[tuple[int, str]]:
    inside = False
    for number, line in enumerate((root / page).read_text(encoding="utf-8").splitlines(), 1):
        inside ^= line.startswith("```")
        if not inside:
            yield number, line
