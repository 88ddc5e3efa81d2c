"""Options of the command line that a request has, too: their meaning and default are read from its source.

The source is read and not imported, so that help needs no torch.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import typer

from trilemma.registry.docstring import meanings_in

HOME = "trilemma.engine.request"


class Written(NamedTuple):
    """An option of a request as it is written: its meaning, and its default where that is a literal."""

    meaning: str
    default: Any


def option(name: str, *flags: str, **settings: Any) -> Any:
    """Returns the typer option of a request's option: the first sentence of its meaning is the help.

    Args:
        name: of the option.
        flags: such as "-n"; by default typer's own.
        settings: further settings of typer.
    """
    sentence = re.split(r"(?<=\.) (?=[A-Z])", _written()[name].meaning)[0]
    return typer.Option(*flags, help=sentence[0].upper() + sentence[1:], **settings)


def default(name: str) -> Any:
    """Returns the default of a request's option."""
    return _written()[name].default


@cache
def _written() -> Mapping[str, Written]:
    found = importlib.util.find_spec(HOME)
    assert found is not None
    assert found.origin is not None
    options: dict[str, Written] = {}
    for node in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        meanings = meanings_in(ast.get_docstring(node) or "")
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                name = field.target.id
                value = ast.literal_eval(field.value) if isinstance(field.value, ast.Constant) else None
                if name in meanings:
                    options.setdefault(name, Written(meanings[name], value))
    return options
