"""The kind of each column of metadata, by a rule: class, scalar, text, image, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import DataError, UsageError, nearest, shown
from trilemma.interfaces.column import ClassColumn, Column, ScalarColumn, TextColumn
from trilemma.interfaces.condition import LABEL
from trilemma_plugins.images.contents import SPLIT, Contents
from trilemma_plugins.images.metadata import ENDING

TEXT = "text"
_MOST_CLASSES = 1000
_MOST_CAPTIONS = 256


@dataclass(frozen=True)
class Rule:
    """The reading of a column.

    Attributes:
        column: its name in the metadata.
        kind: class, scalar, text or image.
        classes: names of the classes.
        captions: the most texts that one image has.
        low, high: the least and the greatest number.
    """

    column: str
    kind: str
    classes: tuple[str, ...] = ()
    captions: int = 1
    low: float = 0.0
    high: float = 0.0


def schema_of(contents: Contents, label: str | None, text: str | None, place: str) -> dict[str, Rule]:
    """Returns the reading of every column by the name of its condition.

    Numbers are a scalar. Strings are classes where each is the value of two images or more on average, and at most
    1,000, else texts. A column `x_file_name` holds images, named x. The column `text` holds texts in any case, a list
    of them for several captions of one image; the column `class` classes. Other columns are not given.

    Args:
        contents: images with their columns.
        label: column of the class; by default `class`, where there is one.
        text: column of the captions; by default `text`, where there is one.
        place: of the images, for messages.

    Raises:
        UsageError: for a column that is not there, or cannot be read so.
        DataError: for images without a class.
    """
    asked = {LABEL: label, TEXT: text}
    for option, column in (("label", label), ("text", text)):
        if column is not None and (column not in contents.columns or not contents.metadata):
            columns = ", ".join(contents.columns) if contents.metadata else "none, without metadata"
            near = nearest(column, contents.columns)
            hint = f"did you mean {near[0]}?" if near and contents.metadata else f"there are {columns}"
            raise UsageError(f"images: {place} has no column {option}={shown(column, 30)}; {hint}")
    rules = {}
    for column, values in contents.columns.items():
        if column == SPLIT:
            continue
        name = next((name for name, given in asked.items() if given == column), column)
        # A column that another takes the place of keeps no name of its own.
        if asked.get(name) not in (None, column):
            continue
        found = _rule(name, column, values)
        if found is None and name in asked:
            raise UsageError(
                f"images: column {shown(column, 30)} of {place} holds {_described(name)}; choose another column"
            )
        if found is None:
            continue
        name = column.removesuffix(ENDING) if found.kind == "image" else name
        if name in rules:
            raise DataError(f"two columns of the metadata in {place} are named {shown(name, 30)}; rename one")
        rules[name] = found
    if LABEL in rules:
        labels = contents.columns[rules[LABEL].column]
        if lost := [name for name, value in zip(contents.names, labels, strict=True) if value is None]:
            count = f", as {len(lost) - 1:,} others" if len(lost) > 1 else ""
            raise DataError(f"{lost[0]} in {place} has no class{count}; give it one, or leave label= out")
    return rules


def _described(name: str) -> str:
    return (
        "something else than strings, integers or booleans" if name == LABEL else "something else than texts"
    )


def _rule(name: str, column: str, values: Sequence[Any]) -> Rule | None:
    present = [value for value in values if value is not None]
    if name == LABEL:
        return _classes(column, present, always=True)
    if name == TEXT:
        return _texts(column, present)
    if column.endswith(ENDING):
        return Rule(column, "image")
    if present and all(_is_number(value) for value in present):
        return Rule(column, "scalar", low=float(min(present)), high=float(max(present)))
    return _classes(column, present, always=False) or (
        Rule(column, "text") if present and all(isinstance(value, str) for value in present) else None
    )


def _classes(column: str, present: Sequence[Any], always: bool) -> Rule | None:
    if not present or not all(
        isinstance(value, str | bool) or (always and isinstance(value, int)) for value in present
    ):
        return None
    distinct = set(present)
    if not always and len(distinct) > min(_MOST_CLASSES, len(present) // 2):
        return None
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in distinct)
    names = [str(value) for value in sorted(distinct)] if numbers else sorted(map(class_name, distinct))
    return Rule(column, "class", tuple(dict.fromkeys(names)))


def _texts(column: str, present: Sequence[Any]) -> Rule | None:
    lists = [value if isinstance(value, list) else [value] for value in present]
    if not lists or not all(isinstance(entries[0], str) for entries in lists):
        return None
    most = max(map(len, lists))
    if most > _MOST_CAPTIONS:
        raise DataError(
            f"an image has {most:,} texts in the column {shown(column, 30)}, at most {_MOST_CAPTIONS} are taken; "
            "remove some"
        )
    return Rule(column, "text", captions=most)


def class_name(value: Any) -> str:
    """Returns the name of the class that a value of metadata means."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_columns(contents: Contents, rules: Mapping[str, Rule], place: str, declared: bool) -> None:
    """Checks that the images of one split have the columns and classes that the rules say.

    Args:
        contents: of the split.
        rules: of all splits.
        place: of the images, for messages.
        declared: whether the user gave the classes.

    Raises:
        DataError: for a column that is missing, or a class that is none of the rules'.
        UsageError: for a class that is none of those which the user gave.
    """
    if not contents.metadata:
        rules = {LABEL: rules.get(LABEL, Rule(LABEL, "class"))}
    for name, rule in rules.items():
        values = contents.columns.get(rule.column)
        if values is None and contents.metadata:
            raise DataError(f"{place} has no column {rule.column}, the training split has one; add it")
        if rule.kind != "class":
            continue
        if values is None and rule.classes:
            raise DataError(f"{contents.names[0]} in {place} lies in no folder of a class; put it in one")
        for file, value in zip(contents.names, values or (), strict=bool(values)):
            if value is not None and class_name(value) not in rule.classes:
                expected = "classes=" if declared and name == LABEL else "the training split's"
                where = "its folder" if not contents.metadata else "its row"
                raise (UsageError if declared and name == LABEL else DataError)(
                    f"{file} in {place} is of a class that is none of {expected}; remove {where}, or declare it"
                )


def labels_of(rule: Rule, contents: Contents) -> Tensor:
    """Returns the labels int64 [N] of a column of classes; −1 where there is none."""
    index = {name: k for k, name in enumerate(rule.classes)}
    values = contents.columns[rule.column]
    return torch.tensor(
        [-1 if value is None else index[class_name(value)] for value in values], dtype=torch.int64
    )


def columns_of(rules: Mapping[str, Rule], contents: Contents, views: int) -> dict[str, Column]:
    """Returns the columns of classes other than the label, numbers and texts; `views` of each image after another.

    The views of caption k come after those of caption k − 1. There are as many captions of each image as one has at
    most; an image with fewer begins again with its first.
    """
    made: dict[str, Column] = {}
    captions = captions_of(rules)
    for name, rule in rules.items():
        values = contents.columns[rule.column]
        if rule.kind == "scalar":
            numbers = [math.nan if value is None else float(value) for value in values]
            known = [rule.low, rule.high, *(number for number in numbers if not math.isnan(number))]
            column = torch.tensor(numbers, dtype=torch.float32).repeat(views * captions)
            made[name] = ScalarColumn(column, min(known), max(known))
        elif rule.kind == "class" and name != LABEL:
            made[name] = ClassColumn(labels_of(rule, contents).repeat(views * captions), rule.classes)
        elif rule.kind == "text":
            texts: list[str | None] = []
            for caption in range(captions):
                texts += [v[caption % len(v)] if isinstance(v, list) else v for v in values] * views
            made[name] = TextColumn(texts)
    return made


def captions_of(rules: Mapping[str, Rule]) -> int:
    """Returns how many captions an image has at most."""
    return max((rule.captions for rule in rules.values()), default=1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
