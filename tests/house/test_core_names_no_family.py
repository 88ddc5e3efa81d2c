"""The core names no family: no sampler, process, guidance, model or data set of a plugin stands in its code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import trilemma
from trilemma.registry import catalog

TREE = Path(trilemma.__file__).parent
# Toolkits that measure or check by example, and the words that are also plain English or terms of the field.
EXAMPLES = {"bench", "testing", "pages"}
WORDS = {
    "class",
    "digits",
    "images",
    "points",
    "flow",
    "simple",
    "schedule",
    "interval",
    "rescale",
    "restart",
    # A kind of model, too.
    "classifier",
}
# The network of a recipe that names none.
KNOWN = [("train/networks.py", "unet")]
KINDS = ("process", "sampler", "guidance", "model", "dataset", "objective", "denoiser")


def names() -> set[str]:
    return {
        entry.spec.name for kind in KINDS for entry in catalog().components(kind) if entry.built_in
    } - WORDS


def texts(path: Path) -> list[str]:
    """The string constants of a file that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = [
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documented
    ]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_family_is_named() -> None:
    known = names()
    assert {"ddim", "cfg", "cld", "mnist"} <= known
    found = [
        (str(path.relative_to(TREE)), text)
        for path in TREE.rglob("*.py")
        if path.relative_to(TREE).parts[0] not in EXAMPLES
        for text in texts(path)
        if known & set(re.split(r"[^\w-]+", text)) and "such as" not in text and "for example" not in text
    ]
    assert found == KNOWN
