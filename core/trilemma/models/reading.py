"""Reads the card of a model, `model.toml`, without its weights and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from trilemma.errors import ModelError, nearest, shown
from trilemma.files.toml import read_toml
from trilemma.models.card_tables import CARD_KINDS, FREE, IN_TOML, KEYS, LISTED, USUAL
from trilemma.models.card_values import wrong_value

FORMAT = 1
CARD = "model.toml"


def read_card(path: Path) -> dict[str, Any]:
    """Reads and checks `path/model.toml` and returns its content.

    Raises:
        ModelError: for a missing file, bad TOML, another format, an unknown kind, an unknown or a missing key, an
            ill-typed value.
    """
    file = path / CARD
    try:
        card = read_toml(file)
    except OSError as error:
        raise ModelError(
            f"{path} is no model directory ({file.name}: {error.strerror}); give a model's name or directory"
        ) from error
    except ValueError as error:
        raise ModelError(f"{file} is no valid TOML: {error}; restore the model") from error
    if type(card.get("format")) is not int or card["format"] != FORMAT:
        raise ModelError(
            f"{file} has format {shown(card.get('format'))}, this version reads format {FORMAT}; upgrade trilemma"
        )
    tables = CARD_KINDS[_checked_kind(file, card)]
    _check_keys(file, "", set(card), {"format", *tables.required}, tables.optional)
    for name in sorted(set(card) - {"format"}):
        _check_table(file, name, card[name])
    if wrong := wrong_value(card):
        raise ModelError(f"{file}: {wrong}; restore the model")
    return card


def kind_of(card: Mapping[str, Any]) -> str:
    """Returns the kind of model that a card describes: a denoiser where it names none."""
    return str(card.get("model", {}).get("kind", USUAL))


def _checked_kind(file: Path, card: Mapping[str, Any]) -> str:
    model = card.get("model")
    kind = model.get("kind", USUAL) if isinstance(model, Mapping) else USUAL
    if isinstance(kind, str) and kind in CARD_KINDS:
        return kind
    near = nearest(kind, CARD_KINDS) if isinstance(kind, str) else []
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(CARD_KINDS)}"
    raise ModelError(f"{file}: model.kind = {shown(kind)} is no kind of model; {hint}")


def _check_table(file: Path, name: str, content: Any) -> None:
    if name in LISTED:
        if not isinstance(content, list) or not content:
            raise ModelError(f"{file}: {name!r} must be a list of tables; write [[{name}]]")
        for entry in content:
            _check_one(file, name, entry)
    else:
        _check_one(file, name, content)


def _check_one(file: Path, name: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise ModelError(f"{file}: {name!r} must be a table; write [{name}]")
    if name in FREE:
        return
    required, optional = KEYS[name]
    _check_keys(file, f"{name}.", set(table), set(required), set(optional))
    for key, value in table.items():
        expected = {**required, **optional}[key]
        types = (int, float) if expected is float else expected
        if not isinstance(value, types) or (expected in (int, float) and isinstance(value, bool)):
            raise ModelError(
                f"{file}: {name}.{key} = {shown(value)} is not {IN_TOML[expected]}; restore the model"
            )


def _check_keys(file: Path, prefix: str, found: Set[str], required: Set[str], optional: Set[str]) -> None:
    for key in sorted(found - required - optional):
        near = nearest(key, required | optional)
        hint = (
            f"did you mean {prefix + near[0]!r}?"
            if near
            else f"known keys: {', '.join(sorted(required | optional))}"
        )
        raise ModelError(f"{file}: unknown key {prefix + key!r}; {hint}")
    for key in sorted(required - found):
        raise ModelError(f"{file}: key {prefix + key!r} is missing; restore the model")
