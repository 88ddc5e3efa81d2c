"""A model by its card alone: what it is, how large, what it can be told, and by what it may be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma.errors import ModelError
from trilemma.files.regular import file_inside, open_regular
from trilemma.files.tensor_header import read_header
from trilemma.models.parts import parts
from trilemma.models.reading import kind_of, read_card


@dataclass(frozen=True)
class Listed:
    """A model by its card and the header of its weights; nothing else of them is read.

    Attributes:
        path: its directory.
        card: the tables of its model.toml.
        parameters: numbers in its weights and in those of the models that it names.
        size: bytes of the same files.
    """

    path: Path
    card: Mapping[str, Any]
    parameters: int
    size: int

    @property
    def kind(self) -> str:
        """Kind that its card names."""
        return kind_of(self.card)

    @property
    def shape(self) -> list[int] | None:
        """Shape (C, H, W) of its images, those of the last stage for a cascade; None where its card states none."""
        for stage in [*parts(self.path, self.card)][-1:] if "stage" in self.card else ():
            return listed(stage.path).shape
        found = self.card.get("data", {}).get("shape")
        return None if found is None else list(found)

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """Its conditions, a table each with its name and kind; a cascade has those of its stages."""
        if "stage" in self.card:
            stages = [listed(stage.path) for stage in parts(self.path, self.card)]
            told = [
                condition
                for stage, table in zip(stages, self.card["stage"], strict=True)
                for condition in stage.conditions
                if condition["name"] != table.get("image") and condition["kind"] != "image"
            ]
            return list({condition["name"]: condition for condition in told}.values())
        options = self.card.get(self.kind, {}).get("options", {})
        tables = options.get("conditions", ())
        found = [{"name": table.get("kind"), **table} for table in tables if isinstance(table, Mapping)]
        if classes := options.get("classes"):
            found.insert(0, {"name": "class", "kind": "class", "size": classes})
        return found


def listed(path: Path) -> Listed:
    """Returns what the card of a model directory says.

    Raises:
        ModelError: for a missing or damaged card or header.
        PluginUnavailable: for a model that it names and that is not there.
    """
    card = read_card(path)
    parameters, size = _weights(path, card) if "weights" in card else (0, 0)
    for other in {part.path: listed(part.path) for part in parts(path, card)}.values():
        parameters, size = parameters + other.parameters, size + other.size
    return Listed(path, card, parameters, size)


def _weights(path: Path, card: Mapping[str, Any]) -> tuple[int, int]:
    name = str(card["weights"]["file"])
    try:
        with open_regular(file_inside(path, name)) as file:
            return read_header(file).numbers, file.seek(0, 2)
    except OSError as error:
        raise ModelError(f"cannot read {path / name}: {error.strerror}; restore the model") from error
    except ValueError as error:
        raise ModelError(f"{path / name} is no safetensors file ({error}); restore the model") from error
