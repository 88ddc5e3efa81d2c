"""The network of a suggested recipe: one that fits the images and the machine, or that of a model to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trilemma.errors import PluginUnavailable, UsageError
from trilemma.models.card import read_card
from trilemma.models.loading import model_path
from trilemma.registry import building, catalog

# Spec of the encoder of texts.
ENCODER = "minilm"
SIDES = (8, 16, 28, 32, 64)
_LEAST, _MOST = 4, 1024


@dataclass(frozen=True)
class Network:
    """A network, the process it is trained on, and the images it takes.

    Attributes:
        side, channels: of the images.
        process, spec, parameterization, options: as a recipe names them.
    """

    side: int
    channels: int
    process: str
    spec: str
    parameterization: str
    options: Mapping[str, Any]


def side_for(shorter_side: int, gpu: bool) -> int:
    """Returns the side that images are resized to: the largest usual one that needs no enlarging."""
    fitting = [side for side in SIDES if side <= min(shorter_side, 64 if gpu else 32)]
    return fitting[-1] if fitting else SIDES[0]


def fresh_network(
    side: int, channels: int, classes: int, dropout: float, gpu: bool, captions: bool = False
) -> Network:
    """Returns a U-Net of two levels, wider and finer where there is a GPU; with captions it is told texts as vectors.

    Raises:
        UsageError: for a side that has no patches.
    """
    if not _LEAST <= side <= _MOST:
        raise UsageError(
            f"size={side} is no side for a recipe; give {_LEAST} to {_MOST}, best a multiple of 16"
        )
    finest = 32 if gpu else 16
    patch = next(patch for patch in range(1, side + 1) if side % patch == 0 and side // patch <= finest)
    if side // patch < min(side, finest // 2):
        raise UsageError(
            f"size={side} has no divisor that makes a small network; give a multiple of {finest}"
        )
    options: dict[str, Any] = {
        "channels": [128, 256] if gpu else [32, 64],
        "blocks": 1,
        "attention": [(side // patch + 1) // 2],
        "patch": patch,
    }
    if classes:
        options["classes"] = classes
    if captions:
        options["conditions"] = [{"kind": "text", "encoder": ENCODER, "form": "vector", "null": True}]
    if dropout:
        options["dropout"] = dropout
    return Network(side, channels, "vp:schedule=cosine,T=1000", "unet", "v", options)


def network_of(model: str, classes: int, asked: int | None) -> Network:
    """Returns the network of a model, to begin with its weights.

    Raises:
        UsageError: for a model of another number of classes, of images that are no squares, or of another size.
        ModelError: for a directory that holds no sound model.
    """
    card = read_card(model_path(model))
    name, (channels, height, width) = card["model"]["name"], card["data"]["shape"]
    if height != width or channels not in (1, 3):
        raise UsageError(
            f"model {name} draws {channels}×{height}×{width}, no square pictures; choose another"
        )
    if asked not in (None, height):
        raise UsageError(f"model {name} draws pictures of {height}×{height}, not {asked}; leave --size out")
    table = card["denoiser"]
    options = dict(table.get("options", {}))
    has = int(options.get("classes", 0))
    if has and has != classes:
        raise UsageError(
            f"model {name} has {has} classes and the images lie in {classes or 'no'} folders of classes; "
            f"put them in {has}, or choose a model without classes"
        )
    return Network(
        height, channels, card["process"]["spec"], table["spec"], table["parameterization"], options
    )


def has_encoder() -> bool:
    """Returns whether the encoder of texts is installed."""
    try:
        building.import_target(catalog().find("encoder", ENCODER))
    except PluginUnavailable:
        return False
    return True


def has_gpu() -> bool:
    """Returns whether a training would run on a GPU."""
    return bool(torch.cuda.is_available())
