"""Functions that take the options of a dataclass: each is written once, there."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from trilemma.registry.docstring import own_docstring

P = ParamSpec("P")
R = TypeVar("R")

PLACE = "Args: of "
_WIDTH = 120


def takes(options: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Returns a decorator for a function (*arguments, **options) that hands them to a dataclass.

    The function itself is returned, so that a call costs nothing more; its type, signature, annotations and the "Args"
    of its docstring, at the line "Args: of NAME", are those of the dataclass.

    Args:
        options: a dataclass; the meaning of a field is in its docstring or in that of a class it derives from.
    """
    assert isinstance(options, type)

    def typed(function: Callable[..., R]) -> Callable[P, R]:
        own = inspect.signature(function)
        asked = inspect.signature(options).replace(return_annotation=own.return_annotation)
        named: Any = function
        named.__signature__ = asked
        named.__annotations__ = {name: p.annotation for name, p in asked.parameters.items()} | {
            "return": own.return_annotation
        }
        place = f"{PLACE}{options.__name__}"
        written = "\n".join(_argument(name, text) for name, text in meanings(options).items())
        named.__doc__ = (function.__doc__ or "").replace(
            place, "Args:\n" + textwrap.indent(written, "        ")
        )
        return cast(Callable[P, R], function)

    return typed


def meanings(options: type) -> dict[str, str]:
    """Returns the meaning of each option of a dataclass, in the order of its signature."""
    found: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        if cls is not object:
            found.update(own_docstring(cls).arguments)
    return {name: found[name] for name in inspect.signature(options).parameters}


def _argument(name: str, text: str) -> str:
    return textwrap.fill(f"{name}: {text}", _WIDTH - 8, subsequent_indent="    ", break_on_hyphens=False)
