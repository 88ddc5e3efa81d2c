"""A training recipe that fits a set of images and the machine that it is written on."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.train.recipe import Recipe, make_recipe
from trilemma.train.suggestion import Suggestion, Wish
from trilemma_plugins.images.dataset import located
from trilemma_plugins.images.network import Network, fresh_network, has_encoder, has_gpu, network_of, side_for
from trilemma_plugins.images.recipe_text import Plan, recipe_text, said_time
from trilemma_plugins.images.step_time import seconds_a_step
from trilemma_plugins.images.survey import Survey, look

# On a CPU, where every image costs time, twice the steps of half the batch bring the loss further down.
_BATCHES = (32, 16, 8, 4, 2)
_GPU_BATCH = 64
# Times that every image is seen; more steps help little after that.
_LOOKS = 400
_ENOUGH_STEPS = 20_000
# Number of images below which the network has dropout.
_FEW = 5000
_HOLD_OUT_FROM, _HELD_OUT = 100, 0.1


def suggest(wish: Wish) -> Suggestion:
    """Returns a recipe for a folder or zip of images; every image is read, and a few training steps are timed.

    Raises:
        DataError: for images that cannot be read, all at once, or folders that are not one a class.
        UsageError: for a size, or a model to begin with, that does not fit.
    """
    root = Path(os.path.abspath(located(str(wish.source))))
    if not _is_text(root):
        raise UsageError(f"{str(root)!a} is no text in UTF-8, which a recipe is written in; rename it")
    survey = look(root)
    network = _network(survey, wish)
    held_out = _HELD_OUT if survey.count >= _HOLD_OUT_FROM else 0.0
    trained_on = (1 if survey.captions else 2) * (survey.count - round(held_out * survey.count))
    sizes = (_GPU_BATCH, *_BATCHES) if has_gpu() else _BATCHES
    batch_size = next(size for size in sizes if size <= trained_on)
    start = None if wish.start is None else _start(wish.start)
    plan = Plan(survey, wish.name, network, start, batch_size, held_out, steps=1000, seconds=1.0)
    seconds = seconds_a_step(_parsed(plan), (network.channels, network.side, network.side))
    plan = plan.timed(_steps(wish.minutes, seconds, survey.count, batch_size), seconds)
    _parsed(plan)
    classes = f"{len(survey.classes)} classes" if survey.classes else "no classes"
    classes += ", captions" if survey.captions else ""
    summary = (
        f"{survey.count:,} images, {'grey' if survey.grey else 'colour'}, {classes}; {plan.steps:,} steps at "
        f"{network.side}×{network.side} take about {said_time(plan.total)} here"
    )
    return Suggestion(recipe_text(plan), summary)


def _network(survey: Survey, wish: Wish) -> Network:
    if wish.size is not None:
        checked_integer(wish.size, "size", 1, 8192)
    if wish.start is not None:
        return network_of(wish.start, len(survey.classes), wish.size)
    gpu = has_gpu()
    side = wish.size or side_for(survey.shorter_side, gpu)
    classes = len(survey.classes) if len(survey.classes) > 1 else 0
    captions = bool(survey.captions) and has_encoder()
    dropout = 0.1 if survey.count < _FEW else 0.0
    return fresh_network(side, 1 if survey.grey else 3, classes, dropout, gpu, captions)


def _start(model: str) -> str:
    """A model's name, or the full path of its directory, so that the recipe works from anywhere."""
    path = Path(model).expanduser()
    return os.path.abspath(path) if (path / "model.toml").is_file() else model


def _steps(minutes: float, seconds: float, count: int, batch_size: int) -> int:
    """As many steps as fit into the minutes beside grids and measurements, at least 20."""
    enough = max(_ENOUGH_STEPS, _LOOKS * count // batch_size)
    steps = max(20, min(int(60 * minutes / seconds) - Plan.EXTRA_STEPS, enough))
    return steps - steps % 10


def _parsed(plan: Plan) -> Recipe:
    """The recipe of a plan: none is suggested that could not be read."""
    return make_recipe(tomllib.loads(recipe_text(plan)))


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
