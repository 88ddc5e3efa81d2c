"""Trained models by name or by directory."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

import torch

from trilemma import lookup
from trilemma.denoiser import Denoiser
from trilemma.model_directory import load_model


def load(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Denoiser:
    """The trained model of a registered name or in a directory, in evaluation mode and without gradients.

    A string with a path separator, or a `Path`, is a directory; any other string is a name.

    Args:
        name_or_path: "mnist", "./runs/mnist/model", Path("model").
        device: where to put it; CPU by default.
        dtype: dtype of the weights; float32 by default.

    Raises:
        UsageError: for an unknown name (with the nearest known ones).
        ModelError: for a directory that holds no sound model.
    """
    return load_model(locate(name_or_path), device, dtype)


def locate(name_or_path: str | Path) -> Path:
    """The model directory of a registered name or a path."""
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, Path) or os.sep in text or (Path(text) / "model.toml").is_file():
        return Path(text)
    package, _, folder = lookup.component("model", text).target.partition(":")
    return Path(str(importlib.resources.files(package) / folder))
