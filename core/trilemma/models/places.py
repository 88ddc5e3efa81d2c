"""Directories of models, by name or by path."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from trilemma.errors import ModelError, shown
from trilemma.files.paths import user_path
from trilemma.models.reading import CARD
from trilemma.registry import Component, catalog


def model_path(model: str | Path) -> Path:
    """Returns the directory that a model's name or path means; a directory comes before a name."""
    path = user_path(model)
    if isinstance(model, Path) or is_model(path):
        return path
    # A name may also be distribution/name.
    registered = any(found.spec.kind == "model" for found in catalog().search(model))
    if os.sep in model and not registered:
        return path
    return registered_path(catalog().find("model", model))


def part_path(part: str, home: Path) -> Path:
    """Returns the directory of a model that the card of another names: a path from its own folder, or a name.

    Args:
        part: as the card names it.
        home: the folder of the card, which need not be there yet.

    Raises:
        ModelError: for a path that leads to no model.
        PluginUnavailable: for an unknown name.
    """
    folder = Path(os.path.normpath(home / part))
    if is_model(folder):
        return folder
    if os.sep in part and not catalog().search(part):
        raise ModelError(
            f"the card of {home} names {shown(part)}, and {folder} is no model directory; restore it"
        )
    return registered_path(catalog().find("model", part))


def registered_path(component: Component) -> Path:
    """Returns the directory of a model that a package ships.

    Raises:
        ModelError: where the package does not hold it.
    """
    package, _, folder = component.spec.target.partition(":")
    found = importlib.util.find_spec(package)
    for root in (found.submodule_search_locations or ()) if found else ():
        if is_model(Path(root) / folder):
            return Path(root) / folder
    raise ModelError(
        f"model {component.address} is missing from {package}; install {component.plugin.distribution} again"
    )


def is_model(path: Path) -> bool:
    """Returns whether a directory holds the card of a model."""
    try:
        return (path / CARD).is_file()
    except OSError:
        # The name may be too long, or the folder closed to us.
        return False
