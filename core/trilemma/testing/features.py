"""Checks of every network of features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from trilemma.interfaces.features import Features
from trilemma.testing import networks
from trilemma.testing.metrics import feature_network_checks

Check = tuple[str, Callable[[], str]]


def features_checks(features: Features) -> Iterator[Check]:
    """Yields pairs of a name and a check: those of a feature network of metrics, and those of a network that learns."""
    network = copy.deepcopy(features).eval()
    images = networks.pictures(network.shape)
    yield "features and logits have the shapes that it says", lambda: _shapes(network, images)
    yield from feature_network_checks(network)
    yield "weights survive a save", lambda: networks.saved(network, _asked, images)
    yield "gradients reach every weight", lambda: networks.learns(network, _asked, images)


def _asked(network: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """What it answers to images, and to all that it can be told."""
    told: dict[str, Tensor] = {}
    for condition in cast(Features, network).conditions.values():
        drawn = condition.drawn(len(images), torch.Generator().manual_seed(7))
        told |= {name: _like(entry, images) for name, entry in drawn.tensors.items()}
    return [entry for entry in network(images, **told) if entry is not None]


def _like(entry: Tensor, images: Tensor) -> Tensor:
    return entry.to(images) if entry.is_floating_point() else entry


@torch.no_grad()
def _shapes(network: Features, images: Tensor) -> str:
    features, logits = network(images)
    assert features.dim() == 2, f"features have shape {tuple(features.shape)}, not [B, D]"
    if network.classes:
        assert logits is not None, f"it has {len(network.classes)} classes and no logits"
        expected = (len(images), len(network.classes))
        assert tuple(logits.shape) == expected, f"logits have shape {tuple(logits.shape)}, not {expected}"
    else:
        assert logits is None, "it has logits and no classes; give them names"
    assert network.takes(network.shape), f"it takes no images of its own shape {network.shape}"
    return f"{features.shape[1]} features"
