"""A recipe for a folder or file of data, as the data sets that are installed suggest it."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from trilemma.errors import DataError, OutputError, PluginUnavailable, UsageError, printable, shown
from trilemma.files.paths import user_path
from trilemma.output.atomic import replacing, telling
from trilemma.registry import catalog
from trilemma.registry.building import import_target
from trilemma.registry.spec import parse_spec
from trilemma.train.recipe import read_recipe

MINUTES = 30.0
_MOST_MINUTES = 1e6
_LONGEST_NAME = 50


@dataclass(frozen=True)
class Wish:
    """The wishes for a suggested recipe.

    Attributes:
        source: folder or file of the data.
        name: of the model.
        minutes: how long the training may take on this machine.
        size: side of the images; None for one that fits them.
        start: name or directory of a model to begin with.

    Raises:
        UsageError: for a time that is not positive.
    """

    source: Path
    name: str
    minutes: float = MINUTES
    size: int | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minutes) and 0 < self.minutes <= _MOST_MINUTES):
            raise UsageError(
                f"minutes={self.minutes:g} is no time for a training; give a number above 0, at most 1,000,000"
            )


@dataclass(frozen=True)
class Suggestion:
    """A recipe that fits data and machine.

    Attributes:
        recipe: commented TOML.
        summary: one line: what was found, and how long it will take.
    """

    recipe: str
    summary: str


def is_data(path: Path) -> bool:
    """Returns whether a path is a folder or a zip, and not a recipe."""
    given = str(user_path(path))
    return os.path.isdir(given) or (
        os.path.isfile(given) and (given.lower().endswith(".zip") or zipfile.is_zipfile(given))
    )


def run_name(source: Path) -> str:
    """Returns the name of a model that is trained on a folder or file: its own, of letters, digits, "_", "-", "."."""
    name = re.sub(r"\.zip$", "", Path(os.path.abspath(source)).name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", name)[:_LONGEST_NAME].strip("-.") or "images"


def suggested(wish: Wish) -> Suggestion:
    """Returns the recipe that a data set suggests.

    Raises:
        DataError: where the data cannot be read.
        PluginUnavailable: where no data set makes recipes.
    """
    makers = [found for found in catalog().components("dataset") if getattr(found.spec, "suggestion", "")]
    makers.sort(key=lambda found: not found.built_in)
    failures: list[DataError] = []
    for found in makers:
        target = getattr(found.spec, "suggestion", "")
        maker = import_target(dataclasses.replace(found, spec=dataclasses.replace(found.spec, target=target)))
        try:
            made: Suggestion = maker(wish)
        except DataError as error:
            failures.append(error)
        else:
            return made
    if failures:
        raise failures[0]
    raise PluginUnavailable("no data set that is installed suggests recipes; write one, see docs/training.md")


def check_free(path: Path, force: bool) -> None:
    """Raises OutputError for a path that is taken, unless `force`."""
    if os.path.lexists(path) and not force:
        raise OutputError(f"{path} exists; choose another --out, or give --force to replace it")


def write_recipe(text: str, path: Path, force: bool = False) -> None:
    """Writes a recipe whole or not at all.

    Raises:
        OutputError: where there is a file already, unless `force`, or the disk refuses.
    """
    check_free(path, force)
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


def recipe_for(
    source: Path, out: Path | None, start: str | None, minutes: float | None, size: int | None
) -> tuple[Path, Path]:
    """Returns the folder of a run on data, and its recipe there, which is written where there is none yet.

    Raises:
        DataError: where the data cannot be read.
        UsageError: for a folder that holds a run on other data.
    """
    place = user_path(source)
    name = run_name(place)
    folder = out or Path("runs") / name
    file = folder / "recipe.toml"
    if file.is_file():
        spec = read_recipe(file).dataset.spec
        if os.path.abspath(place) not in map(str, parse_spec(spec).options.values()):
            raise UsageError(
                f"{file} is a recipe for {shown(spec)}; choose another --out, or train by that file"
            )
        print(f"goes on by {printable(str(file))}", file=sys.stderr)
        return folder, file
    if (folder / "checkpoints").exists():
        raise UsageError(f"{folder} holds a run by another recipe; train by that, or choose another --out")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        command = f"trilemma new-recipe {shlex.quote(str(place))} --out recipe.toml"
        raise UsageError(f"a recipe is written by one process, several train by it; first run {command}")
    made = suggested(Wish(place, name, MINUTES if minutes is None else minutes, size, start))
    write_recipe(made.recipe, file)
    print(f"{printable(str(file))}: {made.summary}", file=sys.stderr)
    return folder, file
