"""Registered descriptions of components: frozen, one class a kind.

A description names its component by a string, so that registering imports nothing; the target is imported
when the component is first used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_LONGEST = {"name": 80, "target": 300, "summary": 200, "reference": 300}
_FOLDER = re.compile(r"[A-Za-z_][\w.]*:[\w./-]+")


@dataclass(frozen=True)
class ComponentSpec:
    """A component by name.

    Attributes:
        name: what users write: letters, digits, ".", "_" and "-", starting with a letter.
        target: "package.module:Attribute", imported at first use.
        summary: one line for listings.
        reference: paper, as "arXiv:2010.02502", or address.
        extra: extra of the distribution that brings what the target imports; named where that is missing.

    Raises:
        TypeError: for a field that is no string.
        ValueError: for a name or a target of the wrong form, and for text that is too long or not one printable line.
    """

    name: str
    target: str
    summary: str
    reference: str = ""
    extra: str | None = None

    kind: ClassVar[str] = ""
    _target_form: ClassVar[tuple[re.Pattern[str], str]] = (_ATTRIBUTE, "package.module:Attribute")

    def __post_init__(self) -> None:
        for field in ("name", "target", "summary", "reference"):
            value = getattr(self, field)
            if type(value) is not str:
                raise TypeError(f"{type(self).__name__}: {field}={value!r} is not a string")
            _check_text(f"{type(self).__name__}: {field}", value, _LONGEST[field])
        if self.extra is not None and type(self.extra) is not str:
            raise TypeError(f"{type(self).__name__}: extra={self.extra!r} is neither a string nor None")
        _check_text(f"{type(self).__name__}: extra", self.extra or "", _LONGEST["name"])
        if not _NAME.fullmatch(self.name):
            rule = "a letter, then letters, digits, '.', '_' and '-'"
            raise ValueError(f"{type(self).__name__}: name {self.name!r} is not {rule}")
        pattern, form = self._target_form
        if not pattern.fullmatch(self.target):
            raise ValueError(f"{type(self).__name__} {self.name!r}: target {self.target!r} is not {form!r}")

    @property
    def module(self) -> str:
        """The part of the target before the colon."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The part of the target after the colon."""
        return self.target.partition(":")[2]


def _check_text(what: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise ValueError(f"{what} has {len(text)} characters; at most {longest} are shown")
    if not text.isprintable():
        raise ValueError(f"{what}={text!r} must be one line of printable characters")


@dataclass(frozen=True)
class ProcessSpec(ComponentSpec):
    """A noising process: target is a `trilemma.interfaces.process.Process`."""

    kind = "process"


@dataclass(frozen=True)
class DenoiserSpec(ComponentSpec):
    """A network: target is a `trilemma.interfaces.denoiser.Denoiser`."""

    kind = "denoiser"


@dataclass(frozen=True)
class AutoencoderSpec(ComponentSpec):
    """A network that makes codes of images: target is a `trilemma.interfaces.autoencoder.Autoencoder`."""

    kind = "autoencoder"


@dataclass(frozen=True)
class ClassifierSpec(ComponentSpec):
    """A network that names classes: target is a `trilemma.interfaces.classifier.Classifier`."""

    kind = "classifier"


@dataclass(frozen=True)
class FeaturesSpec(ComponentSpec):
    """A network whose activations compare images: target is a `trilemma.interfaces.features.Features`."""

    kind = "features"


@dataclass(frozen=True)
class SamplerSpec(ComponentSpec):
    """A sampler: target is a `trilemma.interfaces.sampler.Sampler`.

    Attributes:
        variants: options worth measuring beside the defaults, such as ("eta=1",).
        default: whether it stands in, on processes that it runs on, where neither a request nor a model's card names
            a sampler.
    """

    variants: tuple[str, ...] = ()
    default: bool = False

    kind = "sampler"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.variants, tuple) or not all(isinstance(v, str) for v in self.variants):
            raise TypeError(
                f"SamplerSpec {self.name!r}: variants={self.variants!r} is not a tuple of strings"
            )
        if type(self.default) is not bool:
            raise TypeError(f"SamplerSpec {self.name!r}: default={self.default!r} is neither True nor False")


@dataclass(frozen=True)
class GuidanceSpec(ComponentSpec):
    """A guidance: target is a `trilemma.interfaces.guidance.Guidance`."""

    kind = "guidance"


@dataclass(frozen=True)
class EncoderSpec(ComponentSpec):
    """An encoder of texts: target is a `trilemma.interfaces.encoder.Encoder`.

    Attributes:
        width: numbers in one of its embeddings, so that networks are built without its weights; 0 where its options
            decide.
    """

    width: int = 0

    kind = "encoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.width) is not int or self.width < 0:
            raise TypeError(f"EncoderSpec {self.name!r}: width={self.width!r} is no number of numbers")


@dataclass(frozen=True)
class ObjectiveSpec(ComponentSpec):
    """A training objective: target is a `trilemma.interfaces.objective.Objective`."""

    kind = "objective"


@dataclass(frozen=True)
class DatasetSpec(ComponentSpec):
    """A data set: target is called with its options and answers by index.

    Attributes:
        suggestion: "package.module:function" of a function that looks at a folder or file of data and returns a
            `trilemma.train.suggestion.Suggestion`, a recipe for it; "" where there is none.
    """

    suggestion: str = ""

    kind = "dataset"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.suggestion) is not str:
            raise TypeError(f"DatasetSpec: suggestion={self.suggestion!r} is not a string")
        if self.suggestion and not _ATTRIBUTE.fullmatch(self.suggestion):
            raise ValueError(
                f"DatasetSpec {self.name!r}: suggestion {self.suggestion!r} is not 'package.module:Attribute'"
            )


@dataclass(frozen=True)
class MetricSpec(ComponentSpec):
    """A metric or a feature network: target is a `trilemma.interfaces.metric.Metric` or `FeatureNetwork`.

    Attributes:
        default_features: whether it is a feature network that stands in where neither a model's card nor the user names
            one, for images of the shapes that it takes.
    """

    default_features: bool = False

    kind = "metric"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.default_features) is not bool:
            raise TypeError(
                f"MetricSpec {self.name!r}: default_features={self.default_features!r} is neither True nor False"
            )


@dataclass(frozen=True)
class KernelSpec(ComponentSpec):
    """A backend of kernels: target has `operators` or `cells`, or both, each a mapping by name.

    `operators` take what those of `trilemma.ops` of the same names take. `cells` are functions without arguments that
    yield cells of `trilemma bench kernels` (`trilemma.bench.cell.Cell`) of whatever else a plugin wants measured.
    """

    kind = "kernel"


@dataclass(frozen=True)
class CommandSpec(ComponentSpec):
    """A subcommand of the command line: target is a plain function with typer annotations."""

    kind = "command"


@dataclass(frozen=True)
class ModelSpec(ComponentSpec):
    """A trained model that ships in a package: target is "package:folder", a model directory inside it.

    Attributes:
        default: whether examples draw from it where they name no other.
    """

    default: bool = False

    kind = "model"
    _target_form = (_FOLDER, "package:relative/folder")


SPECS: tuple[type[ComponentSpec], ...] = (
    ProcessSpec,
    DenoiserSpec,
    AutoencoderSpec,
    ClassifierSpec,
    FeaturesSpec,
    SamplerSpec,
    GuidanceSpec,
    EncoderSpec,
    ObjectiveSpec,
    DatasetSpec,
    MetricSpec,
    ModelSpec,
    KernelSpec,
    CommandSpec,
)

KINDS: tuple[str, ...] = tuple(spec.kind for spec in SPECS)
