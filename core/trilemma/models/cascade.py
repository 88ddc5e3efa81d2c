"""Cascades: models of which each continues the images of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trilemma.errors import UsageError
from trilemma.interfaces.condition import Condition, ImageCondition
from trilemma.interfaces.denoiser import Denoiser


@dataclass(frozen=True)
class Stage:
    """One model of a cascade and how it is sampled.

    Attributes:
        model: the denoiser.
        sampler, steps, guidance: as of a request; None for those of the model's own card.
        cond: conditions that are always given.
        image: name of the condition as which the images of the stage before are given. In all stages but the first it
            is by default the only image condition of the model; the first has none.
        clip: whether those images are clamped to [−1, 1] before.
    """

    model: Denoiser
    sampler: str | None = None
    steps: int | None = None
    guidance: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    clip: bool = True


class Cascade:
    """Models of which each continues the images of the one before, such as ever larger ones (2106.15282).

    Args:
        stages: in the order in which they are sampled.
        card: the parsed model.toml it was loaded from, None for a cascade that was not.

    Attributes:
        conditions: those that a request can give, by name; each goes to all stages that have it.

    Raises:
        UsageError: for fewer than two stages, or images that a stage cannot be given.
    """

    def __init__(self, stages: Sequence[Stage], card: Mapping[str, Any] | None = None) -> None:
        if len(stages) < 2:
            raise UsageError(
                f"a cascade has two stages or more, not {len(stages)}; sample a single model by itself"
            )
        self.card = card
        self.stages = tuple(_continuing(number, stages) for number in range(len(stages)))
        self.conditions: dict[str, Condition] = {}
        for stage in self.stages:
            for name, condition in stage.model.conditions.items():
                if name != stage.image:
                    self.conditions.setdefault(name, condition)

    @property
    def name(self) -> str:
        """Name that its card states; "cascade" where it has none."""
        return str((self.card or {}).get("model", {}).get("name", "cascade"))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of the images of the last stage."""
        return self.stages[-1].model.image_shape


def _continuing(number: int, stages: Sequence[Stage]) -> Stage:
    """A stage with the name of its image condition.

    Raises:
        UsageError: for one that cannot be given the images of the stage before.
    """
    stage = stages[number]
    images = [name for name, found in stage.model.conditions.items() if isinstance(found, ImageCondition)]
    if number == 0:
        if stage.image is not None:
            raise UsageError(
                f"stage 1 of a cascade has no stage before it, which image={stage.image!r} asks for; leave it out"
            )
        return stage
    name = stage.image or (images[0] if len(images) == 1 else None)
    if name not in images:
        known = f"one of {', '.join(images)}" if images else "and give the model such a condition"
        raise UsageError(
            f"stage {number + 1}: image={name!r} is no image condition of its model; name {known}"
        )
    condition = stage.model.conditions[name]
    given = stages[number - 1].model.image_shape
    assert isinstance(condition, ImageCondition)
    if condition.shape[0] != given[0]:
        raise UsageError(
            f"stage {number + 1}: {name!r} takes images of {condition.shape[0]} channels and stage {number} makes "
            f"{given[0]}; put other models one after the other"
        )
    return replace(stage, image=name)
