"""A class's docstring in its parts."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace

_SECTION = re.compile(r"^(Use|Args|Attributes|Raises|References): ?(.*)$")
_ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


@dataclass
class Docstring:
    """The parts of a docstring.

    Attributes:
        body: the first line and the equation, with its paragraphs and indented formulas.
        use: when to use it.
        arguments: the meaning of each option.
        references: the papers.
    """

    body: str = ""
    use: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    references: str = ""


def read_docstring(cls: type) -> Docstring:
    """Returns the parts of a class's docstring; parts that it leaves out are those of its base class.

    An interface of the core gives the meanings of the options that all of its classes share, and nothing else.
    """
    own = own_docstring(cls)
    base = cls.__bases__[0]
    if base is object:
        return own
    inherited = read_docstring(base)
    if base.__module__.startswith("trilemma."):
        return replace(own, arguments={**inherited.arguments, **own.arguments})
    equation = any(line.startswith("    ") for line in own.body.splitlines())
    return Docstring(
        body=own.body if equation else f"{own.body}\n\n{inherited.body}",
        use=own.use or inherited.use,
        arguments={**inherited.arguments, **own.arguments},
        references=own.references or inherited.references,
    )


def own_docstring(cls: type) -> Docstring:
    """Returns the parts of a class's own docstring."""
    return _parts(cls.__doc__ or "")


def meanings_in(docstring: str) -> dict[str, str]:
    """Returns the meaning of each argument that a docstring lists."""
    return _parts(docstring).arguments


def _parts(docstring: str) -> Docstring:
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in inspect.cleandoc(docstring).splitlines():
        if found := _SECTION.match(line):
            name = found[1]
            sections[name] = [found[2]] if found[2] else []
        else:
            sections[name].append(line)
    return Docstring(
        body="\n".join(sections[""]).strip(),
        use=_joined(sections.get("Use", [])),
        arguments=_arguments(inspect.cleandoc("\n".join(sections.get("Args", [])))),
        references=_joined(sections.get("References", [])),
    )


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _arguments(text: str) -> dict[str, str]:
    """Meanings by option; "a, b: meaning" is that of both, and an indented line goes on with the one before."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        if found := _ARGUMENT.match(line):
            names = found[1].split(", ")
            meanings.update(dict.fromkeys(names, found[2]))
        else:
            meanings.update({name: f"{meanings[name]} {line.strip()}".strip() for name in names})
    return meanings
