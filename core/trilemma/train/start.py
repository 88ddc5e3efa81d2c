"""The weights of another model that a training begins with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trilemma.errors import UsageError
from trilemma.evaluate.splits import Training
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.loading import load


@dataclass(frozen=True)
class Start:
    """The record of the model that a run began with: its name, the sha256 of its weights, and its training."""

    name: str
    sha256: str
    training: Training | None = None


def begin_with(denoiser: nn.Module, model: str) -> Start:
    """Gives a network the weights of a model, by its name or directory, and returns which they were.

    A network may take conditions, or draw normals, that the model does not. The weights of the parts that hear them,
    which are named as the condition or the draw is (`NAME` or `NAME_…`), stay as they are. Where the model is the
    network that a denoiser is made of, that one takes them.

    Raises:
        UsageError: where the model's network is another one.
        ModelError: for a directory that holds no sound model.
        PluginUnavailable: for an unknown name.
    """
    source = load(model)
    card = source.card or {}
    name = card["model"]["name"]
    misfit = _misfit(denoiser, source)
    inner = [part for part in denoiser.modules() if isinstance(part, Denoiser) and part is not denoiser]
    fitting = [denoiser] if misfit is None else [part for part in inner if _misfit(part, source) is None]
    if not fitting:
        raise UsageError(f"model {name} {misfit}")
    fitting[0].load_state_dict({**fitting[0].state_dict(), **source.state_dict()})
    return Start(name, card["weights"]["sha256"], Training.of(card))


def _misfit(denoiser: nn.Module, source: nn.Module) -> str | None:
    """Describes why a network cannot take the weights of another, and the cure."""
    if (
        isinstance(denoiser, Denoiser)
        and isinstance(source, Denoiser)
        and (told := _misread(denoiser, source))
    ):
        return told
    found = {key: tuple(tensor.shape) for key, tensor in source.state_dict().items()}
    wanted = {key: tuple(tensor.shape) for key, tensor in denoiser.state_dict().items()}
    further = _told(denoiser) - _told(source)
    for key in [*wanted, *found]:
        if key not in found and any(_hears(key, name) for name in further):
            continue
        if found.get(key) != wanted.get(key):
            return (
                f"is another network: {key} is {found.get(key, 'missing')} there, {wanted.get(key, 'missing')} here; "
                "take its card's [denoiser] table and its size of images"
            )
    return None


def _told(network: nn.Module) -> set[str]:
    """The names of what a network is told beside state and time: its conditions and its draws."""
    return {*network.conditions, *network.draws} if isinstance(network, Denoiser) else set()


def _hears(key: str, name: str) -> bool:
    """Returns whether a weight belongs to the part that hears the condition or the draw of a name."""
    part = key.partition(".")[0]
    return part == name or part.startswith(f"{name}_")


def _misread(denoiser: Denoiser, source: Denoiser) -> str | None:
    """Describes how the classes or the parameterization of two networks differ, and the cure."""
    theirs, ours = (_classes(network) for network in (source, denoiser))
    if theirs and not ours:
        return (
            f"was trained on {theirs} classes and this network has none; set denoiser.options.classes = {theirs}, "
            f"with images in {theirs} folders, or choose a model without classes"
        )
    if ours and not theirs:
        return (
            f"has no classes and this network has {ours}; set denoiser.options.classes = 0, or choose a model of "
            f"{ours} classes"
        )
    if theirs != ours:
        return f"has {theirs} classes and this network {ours}; choose a model of {ours} classes"
    if source.parameterization != denoiser.parameterization:
        return (
            f'predicts "{source.parameterization}", the recipe says "{denoiser.parameterization}"; '
            f'set denoiser.parameterization = "{source.parameterization}"'
        )
    return None


def _classes(network: Denoiser) -> int:
    return int(getattr(network.conditions.get(LABEL), "size", 0))
