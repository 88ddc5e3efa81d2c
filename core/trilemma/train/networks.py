"""Tables of a recipe that name the network to train: the one that is there says of which kind the model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trilemma.train.table import Table


@dataclass(frozen=True)
class Network(Table):
    """The denoiser: its spec, parameterization and options."""

    spec: str = "unet"
    parameterization: str = "v"
    options: Mapping[str, Any] = field(default_factory=dict)

    prefix: ClassVar[str] = "denoiser."


@dataclass(frozen=True)
class Named(Table):
    """A network of another kind: its spec and options."""

    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Latent(Table):
    """The trained autoencoder whose codes are the data of the denoiser, by its name or directory."""

    autoencoder: str

    prefix: ClassVar[str] = "latent."


@dataclass(frozen=True)
class Coder(Named):
    """The autoencoder."""

    prefix: ClassVar[str] = "autoencoder."


@dataclass(frozen=True)
class Classing(Named):
    """The classifier, of noised data where the recipe has a process."""

    prefix: ClassVar[str] = "classifier."


@dataclass(frozen=True)
class Comparing(Named):
    """The feature network."""

    prefix: ClassVar[str] = "features."
