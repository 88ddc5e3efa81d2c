"""The tables and keys that the card of a model may have, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Table -> (required keys, optional keys), each with its type.
Keys = tuple[Mapping[str, type], Mapping[str, type]]

_COMPONENT: Final[Keys] = ({"spec": str}, {"options": dict})

KEYS: Final[Mapping[str, Keys]] = {
    "model": ({"name": str}, {"kind": str, "summary": str, "licence": str}),
    "process": ({"spec": str}, {}),
    "denoiser": ({"spec": str, "parameterization": str}, {"options": dict}),
    "autoencoder": _COMPONENT,
    "classifier": _COMPONENT,
    "features": _COMPONENT,
    "encoder": _COMPONENT,
    "latent": ({"autoencoder": str, "sha256": str}, {}),
    "weights": ({"file": str, "sha256": str}, {}),
    "data": ({"shape": list}, {"range": list, "classes": list, "dataset": str}),
    "sampling": ({}, {"sampler": str, "guidance": str, "steps": int}),
    "stage": (
        {"model": str},
        {
            "sha256": str,
            "sampler": str,
            "steps": int,
            "guidance": str,
            "cond": dict,
            "image": str,
            "clip": bool,
            "level": str,
            "noise": float,
            "truncated": bool,
        },
    ),
}

# Tables in which a card may keep whatever it likes.
FREE: Final = frozenset(("evaluation", "provenance"))

# Tables of which a card has several: [[stage]].
LISTED: Final = frozenset(("stage",))

IN_TOML: Final[Mapping[type, str]] = {
    str: "a string",
    dict: "a table",
    list: "an array",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


@dataclass(frozen=True)
class CardKind:
    """The tables of the cards of a kind.

    Attributes:
        required, optional: names of its tables.
    """

    required: frozenset[str]
    optional: frozenset[str]


def _kind(*required: str, optional: tuple[str, ...] = ()) -> CardKind:
    return CardKind(frozenset(("model", *required)), FREE.union(optional))


USUAL: Final = "denoiser"
CARD_KINDS: Final[Mapping[str, CardKind]] = {
    "denoiser": _kind("process", "denoiser", "data", "weights", optional=("latent", "sampling")),
    "autoencoder": _kind("autoencoder", "data", "weights"),
    "classifier": _kind("classifier", "data", "weights", optional=("process",)),
    "features": _kind("features", "data", "weights"),
    "encoder": _kind("encoder"),
    "cascade": _kind("stage", optional=("data",)),
}
WITHOUT_WEIGHTS: Final = frozenset(
    kind for kind, tables in CARD_KINDS.items() if "weights" not in tables.required
)
