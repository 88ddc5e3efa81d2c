"""Spec strings: a component by name with its options.

    ddim:eta=0,grid=trailing        ddim(eta=0, grid=trailing)

A value is a Python literal; inf, nan, true and false are what they say; a name with options in parentheses is a
component, as in Inverse(sampler=ddim(eta=0)); any other bare word, in a list too, is a string. Brackets, quotes and
the commas in them are kept together. A value between angle brackets, as `<tensor 3×4 float32 sha256:…>`, stands for one
that no text can hold: a record tells it from others, but nothing can be built from it.
"""

from __future__ import annotations

import ast
import contextlib
import keyword
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trilemma.errors import UsageError, shown

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z][\w.-]*)?")
# A string that needs no quotes.
_BARE = re.compile(r"[^\s,()\[\]{}'\"]+")
_NESTED = re.compile(_NAME.pattern + r"\s*\(")
_WORDS = {"true": True, "false": False, "inf": math.inf, "nan": math.nan}
_RECORDED = re.compile(r"<[^<>]+>")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Spec:
    """A component by name (or distribution/name) with its options, in the order they were written in."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return format_spec(self.name, self.options)

    def nested(self) -> str:
        """Returns the form that stands as a value in another spec: name(key=value)."""
        return f"{self.name}({_format_options(self.options)})"


@dataclass(frozen=True)
class Recorded:
    """A value that no text can hold, named in angle brackets by a text that tells it from others."""

    text: str

    def __str__(self) -> str:
        return f"<{self.text}>"


def parse_spec(text: str) -> Spec:
    """Returns the spec that a string means.

    Raises:
        UsageError: for a string of the wrong form, with the part that is at fault.
    """
    text = text.strip()
    match = _NAME.match(text)
    if match is None:
        raise UsageError(f"spec {shown(text)} has no name; write name:key=value,key=value")
    name, rest = match.group(), text[match.end() :].strip()
    if not rest:
        return Spec(name)
    if rest[0] == ":":
        body = rest[1:]
    elif rest[0] == "(" and rest[-1] == ")":
        body = rest[1:-1]
        if not body.strip():
            return Spec(name)
    else:
        raise UsageError(f"spec {shown(text)}: {rest[0]!r} cannot follow the name; write {name}:key=value")
    return Spec(name, _parse_options(text, body))


def split_sum(text: str) -> list[str]:
    """Splits a sum such as "cfg:scale=3+interval:lo=0.2" into its specs: at every + before a name, outside brackets and
    quotes.

    Raises:
        UsageError: for an empty term, or brackets that do not close.
    """
    pieces = list(_split(text, text, "+"))
    terms = pieces[:1]
    for piece in pieces[1:]:
        if not piece.strip():
            raise UsageError(f"spec {shown(text)} has an empty term; write name:key=value+name:key=value")
        if piece.strip()[0].isalpha():
            terms.append(piece)
        else:
            # The plus is the sign of a number.
            terms[-1] += "+" + piece
    if len(terms) > 1 and not terms[0].strip():
        raise UsageError(f"spec {shown(text)} has an empty term; write name:key=value+name:key=value")
    return terms


def format_spec(name: str, options: Mapping[str, Any]) -> str:
    """Returns the string that `parse_spec` reads as this name with these options.

    Raises:
        UsageError: for a value that is no literal.
    """
    return f"{name}:{_format_options(options)}" if options else name


def _format_options(options: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={format_value(value)}" for key, value in options.items())


def parse_value(text: str) -> Any:
    """Returns the value that the text right of an equals sign means.

    Raises:
        UsageError: for text that is neither a literal nor a bare word.
    """
    text = text.strip()
    if _BARE.fullmatch(text) and text[0].isdigit() and not _is_number(text):
        # Python would warn of "28x28" before it refuses it.
        return text
    try:
        return ast.literal_eval(_WithWords().visit(ast.parse(text, mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if _BARE.fullmatch(text):
            return text
    if len(text) > 1 and text[0] == "[" and text[-1] == "]":
        # Of names that are no names of Python's, such as [T-shirt/top, 7up].
        return [parse_value(_there(text, part)) for part in _split(text, text[1:-1])]
    if _RECORDED.fullmatch(text):
        raise UsageError(f"{shown(text)} stands for a value that no text holds; give the value itself")
    if _NESTED.match(text) and text[-1] == ")":
        return parse_spec(text)
    raise UsageError(f"{shown(text)} is neither a literal nor a bare word; put strings with blanks in quotes")


def _there(text: str, part: str) -> str:
    if not part.strip():
        raise UsageError(f"{shown(text)} has an empty entry; leave the comma out")
    return part


def _is_number(text: str) -> bool:
    for read in (complex, lambda digits: int(digits, 0)):
        with contextlib.suppress(ValueError):
            read(text)
            return True
    return False


def format_value(value: Any) -> str:
    """Returns the text that `parse_value` reads as this value.

    Raises:
        UsageError: for a value that is no literal.
    """
    if isinstance(value, str) and _reads_as_itself(value):
        return value
    return _literal(value)


def is_literal(value: Any) -> bool:
    """Returns whether a value can stand in a spec string."""
    try:
        _literal(value)
    except UsageError:
        return False
    return True


def _literal(value: Any) -> str:
    match value:
        case Spec():
            return value.nested()
        case Recorded():
            return str(value)
        case None | bool() | int() | str() | bytes() if type(value) in (type(None), bool, int, str, bytes):
            return repr(value)
        case float() if type(value) is float:
            # inf and nan are words.
            return repr(value)
        case list() if type(value) is list:
            return f"[{', '.join(map(_literal, value))}]"
        case tuple() if type(value) is tuple:
            return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
        case dict() if type(value) is dict:
            return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    raise UsageError(f"{type(value).__name__} cannot stand in a spec; use numbers, strings, lists, tuples")


def _reads_as_itself(text: str) -> bool:
    try:
        return bool(_BARE.fullmatch(text)) and parse_value(text) == text
    except UsageError:
        return False


class _WithWords(ast.NodeTransformer):
    """Replaces the words that stand for values by those values, and any other by itself as a string."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(_WORDS.get(node.id, node.id)), node)


def _parse_options(text: str, body: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in _split(text, body):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not key.isidentifier() or keyword.iskeyword(key):
            raise UsageError(
                f"spec {shown(text)}: {shown(item.strip())} is not of the form key=value; write name:key=value"
            )
        if not equals or not value:
            raise UsageError(f"spec {shown(text)}: option {shown(key)} has no value; write {key}=value")
        if key in options:
            raise UsageError(f"spec {shown(text)}: option {shown(key)} is given twice; give it once")
        try:
            options[key] = parse_value(value)
        except UsageError as error:
            raise UsageError(f"spec {shown(text)}: option {shown(key)}: {error}") from None
    return options


def _split(text: str, body: str, separator: str = ",") -> Iterator[str]:
    """The parts of the body between separators that are in no bracket and no quotes."""
    start, open_brackets, quote, escaped = 0, [], "", False
    for place, letter in enumerate(body):
        if quote:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == quote:
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter in _CLOSING:
            open_brackets.append(_CLOSING[letter])
        elif letter in _CLOSING.values():
            if not open_brackets or open_brackets.pop() != letter:
                raise UsageError(f"spec {shown(text)}: {letter!r} closes nothing; check the brackets")
        elif letter == separator and not open_brackets:
            yield body[start:place]
            start = place + 1
    if quote or open_brackets:
        raise UsageError(f"spec {shown(text)}: {quote or open_brackets[-1]!r} is missing; check the brackets")
    yield body[start:]
