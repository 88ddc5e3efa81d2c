"""Trained models by name or by directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.card import load_model
from trilemma.models.cascade import Cascade
from trilemma.models.fusion import fuse
from trilemma.models.places import model_path as model_path

T = TypeVar("T")


def load(
    model: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    fused: bool = False,
) -> Any:
    """Loads a trained model by its name or directory, in evaluation mode and without gradients.

    Its card says of which kind it is: a `Denoiser`, an `Autoencoder`, a `Classifier`, `Features`, an encoder or a
    `Cascade`.

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
    made = load_model(model_path(model), device, dtype)
    networks = [stage.model for stage in made.stages] if isinstance(made, Cascade) else [made]
    for network in networks:
        if fused and isinstance(network, Denoiser) and _on_cpu(network):
            fuse(network)
    return made


def load_of(expected: type[T], model: str | Path, device: str | torch.device | None = None) -> T:
    """Returns a trained model of a kind by its name or directory; see `load`.

    Raises:
        UsageError: for a model of another kind.
    """
    made = load(model, device)
    if not isinstance(made, expected):
        raise UsageError(
            f"{str(model)!r} is a {type(made).__name__}, not of the kind {expected.__name__}; give another"
        )
    return made


def _on_cpu(network: Denoiser) -> bool:
    return all(weight.device.type == "cpu" for weight in network.parameters())
