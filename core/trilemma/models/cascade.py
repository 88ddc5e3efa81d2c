"""Cascades: models of which each continues the images of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trilemma.checks import checked_number
from trilemma.errors import UsageError
from trilemma.interfaces.condition import Condition, ImageCondition, ScalarCondition
from trilemma.interfaces.condition.noise import told_log_snr
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
        level: name of the scalar condition as which the model is told λ = log(1/s² − 1) of the noise on these images;
            by default the name of the image condition with `_level`, where the model has such a one.
        noise: s, the deviation of the noise that makes √(1 − s²) x + s ξ of these images; 0 for none.
        truncated: whether the stage before stops at that level, in place of finishing and being noised again.
    """

    model: Denoiser
    sampler: str | None = None
    steps: int | None = None
    guidance: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    clip: bool = True
    level: str | None = None
    noise: float = 0.0
    truncated: bool = False


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
                if name not in (stage.image, stage.level):
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
    before = stages[number - 1].model if number else None
    images = [name for name, found in stage.model.conditions.items() if isinstance(found, ImageCondition)]
    if number == 0:
        if stage.image is not None:
            raise UsageError(
                f"stage 1 of a cascade has no stage before it, which image={stage.image!r} asks for; leave it out"
            )
        check_noise(number, stage, before)
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
    named = stage.level or f"{name}_level"
    scalar = isinstance(stage.model.conditions.get(named), ScalarCondition)
    if stage.level is not None and not scalar:
        raise UsageError(
            f"stage {number + 1}: level={stage.level!r} is no scalar condition of its model; name one that is"
        )
    found = replace(stage, image=name, level=named if scalar else None)
    check_noise(number, found, before)
    return found


def check_noise(number: int, stage: Stage, before: Denoiser | None) -> None:
    """Checks that a stage can be told images with its noise.

    Args:
        number: of the stage, from 0.
        stage: with the names of its conditions.
        before: the model of the stage before; None in the first.

    Raises:
        UsageError: for a stage without a condition for the level, a level out of its range, or a stage before that
            cannot stop at it.
    """
    if type(stage.truncated) is not bool:
        raise UsageError(
            f"stage {number + 1}: truncated={stage.truncated!r} is neither true nor false; give one"
        )
    level = checked_number(stage.noise, f"stage {number + 1}: noise", 0, 1)
    if not level and not stage.truncated:
        return
    if before is None or stage.image is None:
        raise UsageError("stage 1: no images come from a stage before it; leave noise and truncated out")
    if stage.level is None:
        raise UsageError(
            f"stage {number + 1}: its model is told no level of noise, which noise={level:g} needs; give one trained "
            f"with a scalar condition {stage.image}_level, or leave it out"
        )
    condition = stage.model.conditions[stage.level]
    assert isinstance(condition, ScalarCondition)
    told_log_snr(condition, level, f"stage {number + 1}: ")
    image = stage.model.conditions[stage.image]
    assert isinstance(image, ImageCondition)
    stops = before.process.components == 1 and before.view.is_direct and image.shape == before.image_shape
    if stage.truncated and not stops:
        raise UsageError(
            f"stage {number + 1}: truncated needs a stage before it of one component, that draws images of the size "
            "of the condition; leave it out"
        )
