"""Docstrings of the public code begin with a verb or a noun, and comments stand above their line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [file for folder in ("core", "plugins") for file in sorted((ROOT / folder).rglob("*.py"))]
CLAUSES = ("What", "Which", "Whether", "Of", "How", "Where", "That", "Who", "Whose", "When", "Why")
PRAGMA = re.compile(r"#\s*(type:\s*ignore|noqa|fmt:|pragma:)[^#]*$")


def noun_clauses(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for name, node in [("the module", tree), *_public(tree)]:
        words = (ast.get_docstring(node) or "").split(maxsplit=1)
        if words and words[0].rstrip(",:") in CLAUSES:
            yield f"{name} begins with {words[0]!r}"


def _public(tree: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("_") or node.name.startswith("__"):
                yield node.name, node
                yield from _public(node) if isinstance(node, ast.ClassDef) else ()
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _public(node)


def trailing_comments(source: str) -> Iterator[str]:
    # Most files have no such line, and reading the tokens of all files takes seconds.
    if not re.search(r"\S[ \t]*#", source):
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        trails = token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
        if trails and not PRAGMA.match(token.string):
            yield f"line {token.start[0]}: {token.string}"


def test_no_public_docstring_opens_with_a_noun_clause():
    assert len(FILES) > 300
    found = [f"{file.relative_to(ROOT)}: {what}" for file in FILES for what in noun_clauses(file.read_text())]
    assert not found, "\n".join(found)


def test_no_comment_trails_a_line_of_code():
    found = [
        f"{file.relative_to(ROOT)} {what}" for file in FILES for what in trailing_comments(file.read_text())
    ]
    assert not found, "\n".join(found)


def test_both_are_seen():
    source = '''"""What a module is."""
class A:
    """Which one."""
    @property
    def size(self):
        """Whether it is large."""
    def _private(self):
        """How it works."""
def right():
    """Returns the whole; what else is there."""
    return 1  # noqa: E501
def wrong():
    """Of several."""
    return "# no comment"  # a comment
x = f()  # type: ignore[misc]  # a reason
'''
    assert [what.split()[0] for what in noun_clauses(source)] == ["the", "A", "size", "wrong"]
    assert [what.split(":")[0] for what in trailing_comments(source)] == ["line 14", "line 15"]
