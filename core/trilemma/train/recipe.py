"""A training recipe: everything a run depends on, in one TOML file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from trilemma.errors import UsageError, shown
from trilemma.files.toml import read_toml
from trilemma.models.card_values import LONGEST_NAME
from trilemma.registry.spec import parse_value
from trilemma.train.networks import Classing, Coder, Comparing, Latent, Named, Network
from trilemma.train.optimizer import Optimizer
from trilemma.train.table import LATER, Component, Table, build_table, decisive
from trilemma.train.values import at_least, between, holds, one_of, typed

_MOST_STEPS = 10**12


@dataclass(frozen=True)
class Samples(Table):
    """Sample grids drawn from the averaged weights while training; every = 0 draws none."""

    every: int = 0
    n: int = 64
    sampler: str | None = None
    steps: int = 20
    guidance: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)

    prefix: ClassVar[str] = "samples."

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("samples.every", self.every, 0)
        between("samples.n", self.n, 1, 10_000)
        between("samples.steps", self.steps, 1, 100_000)


@dataclass(frozen=True)
class Validation(Table):
    """The loss of the averaged weights on images that are not trained on; without `dataset` and `fraction`, none.

    Args:
        dataset: spec of a data set to measure it on.
        fraction: of the training set to hold out for it instead; see `trilemma.interfaces.held_out`.
        every: steps between two measurements; the last step is measured too.
        n: most images to measure it on.
    """

    dataset: str | None = None
    fraction: float = 0.0
    every: int = 500
    n: int = 1000

    prefix: ClassVar[str] = "validation."

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = 0 <= self.fraction <= 0.5
        holds("validation.fraction", self.fraction, fits, "a number from 0 to 0.5")
        apart = self.dataset is None or not self.fraction
        holds("validation.fraction", self.fraction, apart, "0 beside validation.dataset")
        at_least("validation.every", self.every, 1)
        at_least("validation.n", self.n, 1)


@dataclass(frozen=True)
class Sampling(Table):
    """The model's own settings in its card: sampler, guidance for samples with a condition, and number of steps."""

    sampler: str | None = None
    guidance: str | None = None
    steps: int | None = None

    prefix: ClassVar[str] = "sampling."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None:
            between("sampling.steps", self.steps, 1, 100_000)


@dataclass(frozen=True)
class Recipe(Table):
    """A training recipe; one of `denoiser`, `autoencoder`, `classifier` and `features` names the network.

    Args:
        latent: the autoencoder whose codes a denoiser draws; its model has a copy. Without it, images are drawn.
        process: of a denoiser, and of a classifier of noised data.
        name, summary, licence: of the model that the run writes.
        steps: optimizer steps.
        batch_size: examples a step, over all processes.
        seed: of initialisation, data order, times, noise, dropout.
        precision: "no", "bf16" or "fp16" (mixed precision); "fp16" on a GPU only.
        compile: run the network through torch.compile: slower to start, faster afterwards. On a CPU only with
            precision "no".
        ema: limit d of the decay of the exponential moving average of the weights.
        ema_warmup: w of the decay min(d, (1 + k)/(w + k)) after step k, while the average is young; 1 for none.
        checkpoint_every, keep: steps between checkpoints, and how many to keep.
        log_every: steps between lines of the log.
        tensorboard: also write TensorBoard event files.
        weights_dtype: dtype of the written weights, "float32" or "float16".
        start: name or directory of a model whose weights the training begins with (fine-tuning).
        validation: the loss on images that are not trained on.
        sampling: sampler, guidance and number of steps of the model where a request names none.
        evaluation: dataset, features, metrics and cond with which `trilemma eval` measures the model; and n, the number
            of samples that are measured so when the run ends, in the log: 0 for none.

    Raises:
        UsageError: for a value of another type or out of range.
    """

    dataset: Component
    objective: Component
    steps: int
    process: Component | None = field(default=None, metadata=LATER)
    denoiser: Network | None = field(default=None, metadata=LATER)
    latent: Latent | None = field(default=None, metadata=LATER)
    autoencoder: Coder | None = field(default=None, metadata=LATER)
    classifier: Classing | None = field(default=None, metadata=LATER)
    features: Comparing | None = field(default=None, metadata=LATER)
    name: str = "model"
    summary: str = ""
    licence: str = ""
    batch_size: int = 128
    seed: int = 0
    precision: str = "no"
    compile: bool = False
    ema: float = 0.999
    checkpoint_every: int = 1000
    keep: int = 2
    log_every: int = 50
    tensorboard: bool = True
    weights_dtype: str = "float32"
    start: str | None = None
    ema_warmup: int = field(default=10, metadata=LATER)
    optimizer: Optimizer = field(default_factory=Optimizer)
    samples: Samples = field(default_factory=Samples)
    validation: Validation = field(default_factory=Validation)
    sampling: Sampling = field(default_factory=Sampling)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        between("steps", self.steps, 1, _MOST_STEPS)
        between("seed", self.seed, 0, 2**64 - 1)
        for key in ("batch_size", "checkpoint_every", "keep", "log_every", "ema_warmup"):
            at_least(key, getattr(self, key), 1)
        one_of("precision", self.precision, ("no", "bf16", "fp16"))
        one_of("weights_dtype", self.weights_dtype, ("float32", "float16"))
        holds("ema", self.ema, 0 <= self.ema < 1, "a number from 0 to below 1")
        single = self.name not in ("", ".", "..") and not set(self.name) & set("/\\\0")
        fits = len(self.name.encode(errors="replace")) <= 200
        holds("name", self.name, single and fits, "a name without slashes, of at most 200 bytes")
        printable = self.licence.isprintable() and len(self.licence) <= LONGEST_NAME
        holds("licence", self.licence, printable, f"a printable name of at most {LONGEST_NAME} characters")
        evaluation_table(self.evaluation)
        self._check_network()
        try:
            json.dumps(dataclasses.asdict(self), ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:150]
            raise UsageError(
                f"recipe: a value cannot be written down: {reason}; use those of TOML"
            ) from error

    def _check_network(self) -> None:
        found = [kind for kind in _TRAINED if getattr(self, kind) is not None]
        if not found:
            raise UsageError(
                "recipe: key 'denoiser' is missing; add it, or one of " + ", ".join(_TRAINED[1:])
            )
        if len(found) > 1:
            raise UsageError(f"recipe: it names {' and '.join(found)}; one model is trained, name one")
        if self.denoiser is not None and self.process is None:
            raise UsageError("recipe: key 'process' is missing; add it")
        if self.latent is not None and self.denoiser is None:
            raise UsageError(f"recipe: [latent] is for a denoiser, and this trains {found[0]}; drop it")

    @property
    def kind(self) -> str:
        """The kind of the model that is trained."""
        return next(kind for kind in _TRAINED if getattr(self, kind) is not None)

    @property
    def network(self) -> Network | Named:
        """The table of that kind."""
        return typing.cast(Network | Named, getattr(self, self.kind))

    @property
    def advice(self) -> dict[str, Any]:
        """The table [evaluation] of the model's card."""
        return {key: value for key, value in self.evaluation.items() if key != "n"}

    @property
    def measured(self) -> int:
        """The number of samples that are measured when the run ends; 0 for none."""
        return int(self.evaluation.get("n", 0))

    def card_tables(self) -> dict[str, Any]:
        """Returns the tables of the model's card that say which network it is."""
        process = {} if self.process is None else {"process": {"spec": self.process.spec}}
        latent = {} if self.latent is None else {"latent": {"autoencoder": INSIDE}}
        table = dataclasses.asdict(self.network) | {"options": dict(self.network.options)}
        return {**process, **latent, self.kind: table}

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain JSON-able data."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))

    def fingerprint(self, start_sha256: str | None = None, latent_sha256: str | None = None) -> str:
        """Returns the sha256 of all settings that decide the weights: a run resumes only under an equal one.

        Args:
            start_sha256: sha256 of the weights that the training begins with; the name of their model does not matter.
            latent_sha256: sha256 of the autoencoder's weights; its name does not matter either.
        """
        found = {key: value for key, value in decisive(self).items() if key not in _BESIDE_THE_WEIGHTS}
        if start_sha256 is not None:
            found["start"] = start_sha256
        if latent_sha256 is not None:
            found["latent"] = latent_sha256
        if self.validation.fraction:
            found["held_out"] = self.validation.fraction
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


# Folder in a latent model that holds its autoencoder.
INSIDE = "autoencoder"

_TRAINED = ("denoiser", "autoencoder", "classifier", "features")


def kinds_in(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the kinds of the networks that the table of a recipe names: one, where it is right."""
    return tuple(kind for kind in _TRAINED if kind in table)


_BESIDE_THE_WEIGHTS = {
    *("name", "summary", "licence", "checkpoint_every", "keep", "log_every", "tensorboard", "weights_dtype"),
    *("samples", "validation", "sampling", "evaluation", "start"),
}


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads the recipe in a TOML file, with `--set key=value` overrides (dotted keys) applied.

    Raises:
        UsageError: for a file that is missing or no TOML, an unknown key (with the nearest known one), a missing or
            ill-typed value.
    """
    return make_recipe(overridden(recipe_table(path), overrides))


def recipe_table(path: str | Path) -> dict[str, Any]:
    """Returns the table of a recipe's TOML file, whose keys are not checked yet.

    Raises:
        UsageError: for a file that is missing or no TOML.
    """
    try:
        return read_toml(Path(path))
    except OSError as error:
        raise UsageError(
            f"cannot read recipe {path}: {error.strerror}; give the path of a TOML file"
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"recipe {path} is no valid TOML: {reason}; correct it") from error


def overridden(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns a table with `key=value` overrides (dotted keys) applied.

    Raises:
        UsageError: for an override that is no pair, or names a value as a table.
    """
    found = copy.deepcopy(dict(table))
    for override in overrides:
        _override(found, override)
    return found


def make_recipe(table: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a parsed TOML table.

    Raises:
        UsageError: for an unknown key, a missing or ill-typed value, or one out of range.
    """
    made: Recipe = build_table(Recipe, table)
    return made


def _override(table: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {shown(override)} is no key=value pair; write for example --set steps=1000")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"--set {shown(override)}: {shown(parent)} is a value, not a table; name one of its siblings"
            )
    table[last] = _literal(text.strip())


def _literal(text: str) -> Any:
    try:
        return parse_value(text)
    except UsageError:
        return text


_EVALUATION = {
    "dataset": str,
    "features": str,
    "metrics": Sequence[str],
    "cond": Mapping[str, Any],
    "n": int,
}


def evaluation_table(table: Mapping[str, Any]) -> None:
    """Raises UsageError for a key or a type that an [evaluation] does not have."""
    for key, value in table.items():
        if key not in _EVALUATION:
            raise UsageError(
                f"recipe: unknown key {shown(f'evaluation.{key}')}; known keys: {', '.join(_EVALUATION)}"
            )
        typed(_EVALUATION[key], value, f"evaluation.{key}")
        if key == "metrics":
            fit = len(value) > 0 and all(isinstance(entry, str) for entry in value)
            holds("evaluation.metrics", value, fit, "a list of metrics")
        if key == "n":
            at_least("evaluation.n", value, 0)
