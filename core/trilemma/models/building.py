"""Builds the network that a card describes, of any kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.encoder import Encoder
from trilemma.interfaces.features import Features
from trilemma.interfaces.process import Process
from trilemma.models.construction import Constructing
from trilemma.models.reading import kind_of


def build(card: Mapping[str, Any], seed: int, autoencoder: Autoencoder | None = None) -> Any:
    """Builds the network that a card describes, its initial weights decided by `seed`, in float32 on the CPU.

    Torch's global generators are neither read nor changed, and its default dtype and device are not read.

    Args:
        card: the tables of a model.toml; [weights] is not read.
        seed: 0 ≤ seed < 2⁶⁴.
        autoencoder: the one that the card's [latent] table names, loaded, such as by `trilemma.load`.

    Raises:
        PluginUnavailable: for a network or process that no plugin brings.
        UsageError: for options that the network refuses, a network of another kind, or a cascade, which has none.
    """
    kind = kind_of(card)
    if kind not in _BUILDERS:
        raise UsageError(f"a {kind} has no network of its own; build those that it names")
    with torch.device("cpu"), Constructing(seed):
        if kind == "denoiser":
            return _denoiser(card, autoencoder)
        return _BUILDERS[kind](card)


def build_alike(model: Any, card: Mapping[str, Any], seed: int) -> Any:
    """Builds the network of a card like a model that has the same card, whose autoencoder it shares; see `build`."""
    view = getattr(model, "view", None)
    return build(card, seed, view.autoencoder if isinstance(view, Latent) else None)


def build_denoiser(card: Mapping[str, Any], seed: int) -> Denoiser:
    """Returns the denoiser that a card describes; see `build`."""
    return cast(Denoiser, build(card, seed))


def _denoiser(card: Mapping[str, Any], autoencoder: Autoencoder | None = None) -> Any:
    shape = tuple(card["data"]["shape"])
    if "latent" in card:
        if autoencoder is None:
            raise UsageError(
                f"[latent] names {card['latent']['autoencoder']!r}; give that autoencoder, loaded"
            )
        shape = tuple(autoencoder.code_shape(shape))
    process, _ = lookup.build("process", card["process"]["spec"])
    parameterization = card["denoiser"]["parameterization"]
    made = _made(card, "denoiser", Denoiser, process=process, parameterization=parameterization, shape=shape)
    if "latent" in card and autoencoder is not None:
        made.view = Latent(autoencoder, tuple(card["data"]["shape"]))
    return made


def _autoencoder(card: Mapping[str, Any]) -> Any:
    return _made(card, "autoencoder", Autoencoder, shape=tuple(card["data"]["shape"]))


def _classifier(card: Mapping[str, Any]) -> Any:
    process = lookup.build("process", card["process"]["spec"])[0] if "process" in card else None
    return _made(card, "classifier", Classifier, process=cast(Process | None, process), **_labelled(card))


def _features(card: Mapping[str, Any]) -> Any:
    return _made(card, "features", Features, **_labelled(card))


def _encoder(card: Mapping[str, Any]) -> Any:
    return _made(card, "encoder", Encoder)


_BUILDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "denoiser": _denoiser,
    "autoencoder": _autoencoder,
    "classifier": _classifier,
    "features": _features,
    "encoder": _encoder,
}


def _labelled(card: Mapping[str, Any]) -> dict[str, Any]:
    return {"shape": tuple(card["data"]["shape"]), "classes": tuple(card["data"].get("classes", ()))}


def _made(card: Mapping[str, Any], kind: str, expected: Any, **given: Any) -> Any:
    table = card[kind]
    made, spec = lookup.build(kind, table["spec"], **given, **table.get("options", {}))
    if not isinstance(made, expected):
        raise UsageError(f"{spec} is no {expected.__name__}; name a component of that kind as [{kind}] spec")
    return made
