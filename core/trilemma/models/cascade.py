"""Cascades: models of which each continues the images of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trilemma.interfaces.denoiser import Denoiser


@dataclass(frozen=True)
class Stage:
    """One model of a cascade and how it is sampled.

    Attributes:
        model: the denoiser.
        sampler, steps, guidance: as of a request; None for those of the model's own card.
        cond: conditions that are always given.
        image: name of the condition that the images of the stage before are given as; None in the first stage.
    """

    model: Denoiser
    sampler: str | None = None
    steps: int | None = None
    guidance: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None


@dataclass(frozen=True, eq=False)
class Cascade:
    """Models of which each continues the images of the one before, such as ever larger ones (2106.15282).

    Attributes:
        card: the parsed model.toml it was loaded from, None for a cascade that was not.
        stages: in the order in which they are sampled.
    """

    card: Mapping[str, Any] | None
    stages: tuple[Stage, ...]
