"""Models that the card of another model names: the autoencoder of a latent model, the stages of a cascade."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trilemma.errors import ModelError
from trilemma.models.places import part_path
from trilemma.models.reading import CARD, kind_of, read_card

# By table: the key that names a model, and the kind that it is of.
PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "latent": ("autoencoder", "autoencoder"),
    "stage": ("model", "denoiser"),
}


@dataclass(frozen=True)
class Part:
    """A model that another one's card names.

    Attributes:
        path: its directory.
        card: the tables of its model.toml.
    """

    path: Path
    card: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Digest of its weights."""
        return str(self.card["weights"]["sha256"])


def part(home: Path, name: str, table: Mapping[str, Any], place: Path | None = None) -> Part:
    """Returns the model that a table of a card names.

    Args:
        home: the folder of the card.
        name: of the table, one of `PARTS`.
        table: its content.
        place: the directory of the model, where it is known already.

    Raises:
        ModelError: for a model that is not there or damaged, or one of another kind.
        PluginUnavailable: for an unknown name.
    """
    key, expected = PARTS[name]
    found = part_path(table[key], home) if place is None else place
    card = read_card(found)
    if kind_of(card) != expected:
        raise ModelError(
            f"{home / CARD}: {name}.{key} names a {kind_of(card)}, {found}; name a model of kind {expected}"
        )
    return Part(found, card)


def parts(home: Path, card: Mapping[str, Any]) -> Iterator[Part]:
    """Yields the models that a card names, in its order; see `part`."""
    for name in PARTS:
        content = card.get(name, [])
        for table in content if isinstance(content, list) else [content]:
            yield part(home, name, table)
