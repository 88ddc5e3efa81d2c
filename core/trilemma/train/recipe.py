"""A training recipe: everything a run depends on, in one TOML file."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trilemma.errors import UsageError, nearest
from trilemma.reading.toml import read_toml


@dataclass(frozen=True)
class Component:
    """A component by spec string."""

    spec: str


@dataclass(frozen=True)
class Network:
    """The denoiser: its spec, what it predicts, and its options."""

    spec: str = "unet"
    parameterization: str = "v"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimizer:
    """AdamW with linear warm-up over `warmup` steps and a cosine from `lr` to `final_lr`; `clip` bounds the norm."""

    lr: float = 1e-3
    final_lr: float = 0.0
    warmup: int = 500
    weight_decay: float = 0.01
    betas: Sequence[float] = (0.9, 0.99)
    clip: float = 1.0


@dataclass(frozen=True)
class Samples:
    """Sample grids drawn from the averaged weights while training; every = 0 draws none."""

    every: int = 0
    n: int = 64
    sampler: str = "ddim"
    steps: int = 20
    guidance: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """What the model's card says it is drawn with."""

    sampler: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A training recipe.

    Args:
        name, summary: of the model that the run writes.
        steps: optimizer steps.
        batch_size: examples a step, over all processes.
        seed: of initialisation, data order, times, noise.
        precision: "no", "bf16" or "fp16" (mixed precision).
        compile: run the network through torch.compile: slower to start, faster afterwards. On a CPU only with
            precision "no".
        ema: decay of the exponential moving average of the weights.
        checkpoint_every, keep: steps between checkpoints, and how many to keep.
        log_every: steps between lines of the log.
        tensorboard: also write TensorBoard event files.
        weights_dtype: dtype of the written weights, "float32" or "float16".
        sampling: what the model is drawn with where nothing else is asked for.
    """

    dataset: Component
    process: Component
    denoiser: Network
    objective: Component
    steps: int
    name: str = "model"
    summary: str = ""
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
    optimizer: Optimizer = field(default_factory=Optimizer)
    samples: Samples = field(default_factory=Samples)
    sampling: Sampling = field(default_factory=Sampling)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least("steps", self.steps, 1)
        _at_least("batch_size", self.batch_size, 1)
        _at_least("checkpoint_every", self.checkpoint_every, 1)
        _at_least("keep", self.keep, 1)
        _at_least("log_every", self.log_every, 1)
        _at_least("samples.every", self.samples.every, 0)
        _one_of("precision", self.precision, ("no", "bf16", "fp16"))
        _one_of("weights_dtype", self.weights_dtype, ("float32", "float16"))
        if not 0 <= self.ema < 1:
            raise UsageError(f"recipe: ema = {self.ema} is no decay; expected a number from 0 to below 1")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON-able data."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))

    def fingerprint(self) -> str:
        """sha256 of what the weights depend on: a run resumes only under the recipe that started it."""
        decisive = {key: value for key, value in self.to_dict().items() if key not in _BESIDE_THE_WEIGHTS}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


_BESIDE_THE_WEIGHTS = {
    *("name", "summary", "checkpoint_every", "keep", "log_every", "tensorboard", "weights_dtype"),
    *("samples", "sampling", "evaluation"),
}


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `--set key=value` overrides (dotted keys) applied.

    Raises:
        UsageError: for a file that is missing or no TOML, an unknown key (with the nearest known one), a missing or
            ill-typed value.
    """
    path = Path(path)
    try:
        table = read_toml(path)
    except OSError as error:
        raise UsageError(
            f"cannot read recipe {path}: {error.strerror}; give the path of a TOML file"
        ) from error
    except ValueError as error:
        raise UsageError(f"recipe {path} is no valid TOML: {error}; correct it") from error
    for override in overrides:
        _override(table, override)
    return typing.cast(Recipe, _build(Recipe, table, ""))


def _override(table: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {override!r} is no key=value pair; write for example --set steps=1000")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"--set {override!r}: {parent!r} is a value, not a table; name one of its siblings"
            )
    table[last] = _literal(text.strip())


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(cls: type, table: Mapping[str, Any], prefix: str) -> object:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            near = nearest(key, fields)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise UsageError(f"recipe: unknown key {prefix + key!r}; {hint}")
    for name, f in fields.items():
        if name not in table and f.default is f.default_factory is dataclasses.MISSING:
            raise UsageError(f"recipe: key {prefix + name!r} is missing; add it")
    return cls(**{key: _value(hints[key], value, prefix + key) for key, value in table.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UsageError(f"recipe: {key!r} must be a table; write [{key}]")
        return _build(typing.cast(type, hint), value, key + ".")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _value(next(o for o in options if o is not type(None)), value, key)
    expected = origin or hint
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and expected is not bool
    if expected is not Any and (wrong_bool or not isinstance(value, expected)):
        raise UsageError(
            f"recipe: {key} = {value!r} has the wrong type; expected {getattr(expected, '__name__', expected)}"
        )
    return value


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"recipe: {key} = {value} is too small; expected at least {least}")


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"recipe: unknown {key} = {value!r}; expected one of {', '.join(known)}")
