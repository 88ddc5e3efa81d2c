"""The source of a component: its options are read from it without an import (which would import torch)."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Option:
    """A keyword argument of a constructor, as its source writes it.

    Attributes:
        name: its name.
        default: source text of the default, None where the option must be given.
        annotation: source text of the type.
        help: its entry in the docstring's Args section.
        keyword_only: whether it comes after the others, as a dataclass asks for.
    """

    name: str
    default: str | None
    annotation: str = ""
    help: str = ""
    keyword_only: bool = False


@dataclass(frozen=True)
class Source:
    """A class or function in its source file.

    Attributes:
        docstring: cleaned; "" where there is none.
        options: in the order of the constructor.
    """

    docstring: str
    options: tuple[Option, ...]


def read_source(target: str) -> Source | None:
    """Returns the source of "package.module:Attribute"; None where it cannot be found or is not plain Python."""
    module, _, attribute = target.partition(":")
    found = _definition(module, attribute)
    if found is None:
        return None
    docstring = inspect.cleandoc(ast.get_docstring(found.node, clean=False) or "")
    helps = _argument_helps(docstring)
    options = tuple(
        replace(option, help=helps.get(option.name, ""))
        for option in sorted(_options(found), key=lambda option: option.keyword_only)
    )
    return Source(docstring, options)


@dataclass(frozen=True)
class _Definition:
    """A class or function, and the module it stands in."""

    module: str
    node: ast.ClassDef | ast.FunctionDef


def _definition(module: str, name: str) -> _Definition | None:
    """Finds the definition of the class or function that a module knows by this name."""
    tree = _tree(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return _Definition(module, node)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and (home := _absolute(module, node)) != module:
                    return _definition(home, alias.name)
    return None


def _options(found: _Definition) -> list[Option]:
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return _parameters(node)
    for entry in node.body:
        if isinstance(entry, ast.FunctionDef) and entry.name == "__init__":
            return _parameters(entry)[1:]
    options: dict[str, Option] = {}
    for base in reversed(node.bases):
        parent = _definition(found.module, base.id) if isinstance(base, ast.Name) else None
        if parent is not None:
            options |= {option.name: option for option in _options(parent)}
    if _is_dataclass(node):
        options |= {option.name: option for option in _fields(node)}
    return list(options.values())


def _parameters(function: ast.FunctionDef) -> list[Option]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return [_option(argument.arg, default, argument.annotation) for argument, default in pairs]


def _fields(node: ast.ClassDef) -> Iterator[Option]:
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            annotation = ast.unparse(entry.annotation)
            if not re.match(r"(typing\.)?ClassVar\b", annotation):
                yield replace(
                    _option(entry.target.id, entry.value, entry.annotation),
                    keyword_only=_is_keyword_only(node),
                )


def _option(name: str, default: ast.expr | None, annotation: ast.expr | None) -> Option:
    return Option(
        name, ast.unparse(default) if default else None, ast.unparse(annotation) if annotation else ""
    )


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(re.match(r"(dataclasses\.)?dataclass\b", ast.unparse(entry)) for entry in node.decorator_list)


def _is_keyword_only(node: ast.ClassDef) -> bool:
    return any("kw_only=True" in ast.unparse(entry) for entry in node.decorator_list)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file = _file(module)
    package = module.split(".") if file and file.name == "__init__.py" else module.split(".")[:-1]
    parents = package[: len(package) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


@cache
def _tree(module: str) -> ast.Module | None:
    file = _file(module)
    try:
        return ast.parse(file.read_bytes()) if file else None
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _file(module: str) -> Path | None:
    """The source file of a module; unlike `find_spec("a.b")` this does not import `a`."""
    path: list[str] | None = None
    found: importlib.machinery.ModuleSpec | None = None
    name = ""
    try:
        for part in module.split("."):
            name = f"{name}.{part}" if name else part
            if path is None:
                found = importlib.util.find_spec(name)
            else:
                found = importlib.machinery.PathFinder.find_spec(name, path)
            if found is None:
                return None
            path = list(found.submodule_search_locations or ())
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _argument_helps(docstring: str) -> dict[str, str]:
    """The entries of a Google-style Args section by name; an entry `a, b:` counts for both."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    helps: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(section.group(1)).splitlines() if section else ():
        entry = re.match(r"([\w*, ]+):\s*(.*)", line)
        if entry and not line.startswith(" "):
            names = [name.strip() for name in entry.group(1).split(",")]
            helps |= dict.fromkeys(names, entry.group(2))
        else:
            helps |= {name: f"{helps[name]} {line.strip()}".strip() for name in names}
    return helps
