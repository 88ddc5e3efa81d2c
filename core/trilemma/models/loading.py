"""Trained models by name or by directory."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch

from trilemma.errors import ModelError
from trilemma.files.paths import user_path
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.card import load_model
from trilemma.models.fusion import fuse
from trilemma.registry import catalog


def load(
    model: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    fused: bool = False,
) -> Denoiser:
    """Loads a trained model by its name or directory, in evaluation mode and without gradients.

    Args:
        model: a registered name, such as "mnist", or a model directory: a `Path`, a string with a separator, or
            the name of a directory that holds a `model.toml`.
        device: where to put it; CPU by default.
        dtype: dtype of the weights; float32 by default.
        fused: use the native operators, see `trilemma.fuse`, as `sample` does for a model given by name; only on a CPU,
            where they were measured.

    Raises:
        PluginUnavailable: for an unknown name.
        ModelError: for a directory that holds no sound model.
    """
    network = load_model(model_path(model), device, dtype)
    if fused and all(weight.device.type == "cpu" for weight in network.parameters()):
        fuse(network)
    return network


def _is_model(path: Path) -> bool:
    try:
        return (path / "model.toml").is_file()
    except OSError:
        # The name may be too long, or the folder closed to us.
        return False


def model_path(model: str | Path) -> Path:
    """Returns the directory that a model's name or path means; a directory comes before a name."""
    path = user_path(model)
    if isinstance(model, Path) or _is_model(path):
        return path
    # A name may also be distribution/name.
    registered = any(found.spec.kind == "model" for found in catalog().search(model))
    if os.sep in model and not registered:
        return path
    component = catalog().find("model", model)
    package, _, folder = component.spec.target.partition(":")
    found = importlib.util.find_spec(package)
    for root in (found.submodule_search_locations or ()) if found else ():
        if _is_model(Path(root) / folder):
            return Path(root) / folder
    raise ModelError(
        f"model {component.address} is missing from {package}; install {component.plugin.distribution} again"
    )
