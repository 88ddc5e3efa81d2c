"""Recipes of several stages: trainings one after the other, each beginning with the model of one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma.errors import UsageError, shown
from trilemma.train.recipe import Recipe, kinds_in, make_recipe, overridden, recipe_table
from trilemma.train.trainer import TrainingResult, train

KEY = "stage"


@dataclass(frozen=True)
class Stage:
    """One training of several.

    Attributes:
        name: of the stage, its folder and its model.
        table: of its recipe, in which {NAME} still stands for the model of stage NAME.
    """

    name: str
    table: Mapping[str, Any]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of the model that it trains; not one of them, where it is no recipe."""
        return kinds_in(self.table)

    def recipe(self, models: Mapping[str, Path], start: Path | None = None) -> Recipe:
        """Returns the recipe, given the models of the stages before by their names, and the one it begins with."""
        table: dict[str, Any] = _filled(self.table, {name: str(path) for name, path in models.items()})
        if start is not None:
            table.setdefault("start", str(start))
        return make_recipe(table)


def read_stages(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Stage, ...]:
    """Returns the stages of a recipe in a TOML file; () for a recipe of one training.

    Each table `[[stage]]` has a `name` and the values that replace those of the recipe in this stage. A stage begins
    with the weights of the last stage before it that trains a model of the same kind, such as a denoiser, unless it
    sets `start`; in its strings, {NAME} stands for the model directory of an earlier stage NAME.

    Args:
        path: of the file.
        overrides: `key=value`, applied to every stage.

    Raises:
        UsageError: for a file that is missing or no TOML, or a stage without a name or with one that was there before.
    """
    table = recipe_table(path)
    given = table.pop(KEY, [])
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise UsageError(f"recipe {path}: {KEY} is no array of tables; write [[{KEY}]] before each")
    stages: list[Stage] = []
    for number, entry in enumerate(given, 1):
        name = entry.get("name")
        if not isinstance(name, str) or not name or name in {stage.name for stage in stages}:
            raise UsageError(
                f"recipe {path}: the name of stage {number} is {shown(name)}; give each stage a name of its own"
            )
        stages.append(Stage(name, overridden(_merged(table, entry), overrides)))
    return tuple(stages)


def train_stages(
    stages: Sequence[Stage],
    folder: Path,
    progress: bool = False,
    ended: Callable[[TrainingResult], None] = lambda result: None,
) -> list[TrainingResult]:
    """Trains the stages one after the other, each in `folder/NAME`; those that have ended are not trained again.

    Args:
        stages: of a recipe.
        folder: of all of them.
        progress: show a progress bar for each on stderr.
        ended: called with the result of a stage as soon as it has ended.

    Raises:
        Interrupted: a KeyboardInterrupt, where a signal ended a stage after a step.
        TrilemmaError: as `trilemma.train.train` does; a stage that is no recipe is refused before the first.
    """
    models = {stage.name: folder / stage.name / "model" for stage in stages}
    recipes: list[Recipe] = []
    for number, stage in enumerate(stages):
        known = {before.name: models[before.name] for before in stages[:number]}
        alike = [models[before.name] for before in stages[:number] if before.kinds == stage.kinds]
        recipes.append(stage.recipe(known, alike[-1] if alike else None))
    results = []
    for stage, recipe in zip(stages, recipes, strict=True):
        results.append(train(recipe, models[stage.name].parent, progress=progress))
        ended(results[-1])
    return results


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in over.items():
        there = found.get(key)
        found[key] = _merged(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return found


def _filled(value: Any, models: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(entry, models) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, models) for entry in value]
    if isinstance(value, str):
        for name, path in models.items():
            value = value.replace(f"{{{name}}}", path)
    return value
