"""A page of Markdown as the steps that it asks its reader to take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = {"trilemma", "python", "pip", "make", "pytest", "mypy", "ruff", "accelerate", "torchrun"}
PROGRAMS |= {"cd", "source", "git", "twine", "export", "cp", "mkdir", "curl"}

_FENCE = re.compile(r"^```(\w*)\s*$")
_ASSIGNMENTS = re.compile(r"^(?:[A-Z_]+=\S* )+")
_FILE_NAME = re.compile(r"# ([\w./-]+\.(?:py|toml))")

Kind = Literal["command", "python", "toml", "write", "text"]


@dataclass(frozen=True)
class Step:
    """One thing that a page asks for, or shows.

    Attributes:
        page: path from the repository's root.
        line: where it stands, from 1.
        kind: "command", a line for a shell; "python" and "toml", a fenced block; "write", a fenced block that
            begins with the name of its file; "text", a line of an indented block that is none of these.
        text: what stands there, without the comment after a command and the name of a file.
        file: of "write".
        language: of the fence; "" without one.
    """

    page: str
    line: int
    kind: Kind
    text: str
    file: str = ""
    language: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path = ROOT) -> list[str]:
    """Returns every page of Markdown that is documentation, by its path from the root."""
    found = [root / "README.md"]
    for folder in ("docs", "plugins", "examples"):
        found += sorted((root / folder).rglob("*.md"))
    return [str(page.relative_to(root)) for page in found if "node_modules" not in page.parts]


def steps(page: str, root: Path = ROOT) -> Iterator[Step]:
    """Yields the steps of a page, from top to bottom."""
    lines = (root / page).read_text(encoding="utf-8").splitlines()
    place = 0
    while place < len(lines):
        if fence := _FENCE.match(lines[place]):
            end = next(k for k in range(place + 1, len(lines)) if lines[k].startswith("```"))
            yield from _fenced(page, place + 2, fence[1], lines[place + 1 : end])
            place = end + 1
        elif _begins_block(lines, place):
            end = place
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield from _indented(page, place + 1, lines[place:end])
            place = end
        else:
            place += 1


def commands(line: str) -> list[str]:
    """Returns the commands of a line for a shell, without its comment."""
    return [part.strip() for part in re.sub(r"\s+#\s.*", "", line).split(" && ")]


def inline_commands(page: str, root: Path = ROOT) -> Iterator[Step]:
    """Yields the commands `trilemma …` that a page names in a sentence."""
    inside = False
    for number, line in enumerate((root / page).read_text(encoding="utf-8").splitlines(), 1):
        inside ^= line.startswith("```")
        if not inside and not line.startswith("    "):
            for found in re.finditer(r"`(trilemma [^`]+)`", line):
                yield Step(page, number, "command", found[1])


def _begins_block(lines: list[str], place: int) -> bool:
    return (
        lines[place].startswith("    ")
        and bool(lines[place].strip())
        and not (place and lines[place - 1].strip())
    )


def _fenced(page: str, line: int, language: str, lines: list[str]) -> Iterator[Step]:
    text = "\n".join(lines) + "\n"
    if language in ("sh", "bash", "shell", "console"):
        yield from _indented(page, line, lines)
    elif language in ("python", "toml"):
        named = _FILE_NAME.fullmatch(lines[0])
        if named:
            yield Step(page, line, "write", text.partition("\n")[2], named[1], language)
        else:
            yield Step(page, line, "python" if language == "python" else "toml", text, language=language)
    else:
        yield Step(page, line, "text", text, language=language)


def _indented(page: str, line: int, lines: list[str]) -> Iterator[Step]:
    place = 0
    while place < len(lines):
        first, text = place, lines[place].strip()
        while text.endswith("\\"):
            place += 1
            text = f"{text[:-1].rstrip()} {lines[place].strip()}"
        place += 1
        if not text:
            continue
        if _ASSIGNMENTS.sub("", text).split()[0].removeprefix("$") in PROGRAMS:
            for command in commands(text):
                yield Step(page, line + first, "command", command)
        else:
            yield Step(page, line + first, "text", text)
