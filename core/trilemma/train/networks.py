"""Tables of a recipe that name the network to train: the one that is there says of which kind the model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trilemma.errors import UsageError
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
    """The autoencoder whose codes are the data of the denoiser.

    Args:
        autoencoder: a trained one, by its name or directory.
        spec, options: in its place, one that the objective trains from the start, beside the denoiser.
    """

    autoencoder: str | None = None
    spec: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    prefix: ClassVar[str] = "latent."

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.autoencoder is None) == (self.spec is None):
            raise UsageError(
                "recipe: [latent] names one autoencoder; give latent.autoencoder, a trained one, or latent.spec"
            )
        if self.options and self.spec is None:
            raise UsageError("recipe: latent.options are those of latent.spec; drop them")


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
