"""Runs cascades: each stage is a request of its own, told the images of the stage before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.batches import Chunk
from trilemma.engine.request import OF_STAGES, OF_TOLD_IMAGES, Request
from trilemma.engine.sampling import SampleChunks, Samples
from trilemma.engine.told_images import with_noise
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.condition import ImageCondition, Prepared, ScalarCondition
from trilemma.interfaces.condition.noise import told_log_snr
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.cascade import Cascade, Stage, check_noise
from trilemma.models.loading import load
from trilemma.numerics.noise_levels import level_of, log_snr_of
from trilemma.numerics.step_keys import step_key

# Options that mean nothing for a cascade as a whole.
_OF_ONE_MODEL = ("sampler", "steps", "guidance", "latent", "start", "known", "mask", "noise")

# Parts of a stage's record that a cascade as a whole does not have, those that it has too, and those of its cost.
_OF_A_STAGE = ("sampler", "guidance", "guiding", "process", "steps", "encoders")
_DECIDING = ("model", "cond", "seed", "dtype", "network_dtype")
_COSTS = ("nfe", "backend", "capture")

# Stream of the seeds of stages.
_SEEDS = 7


def chunks_of(request: Request) -> SampleChunks:
    """Returns the running request of a model or of a cascade.

    Raises:
        UsageError: for an impossible request.
    """
    model = request.model
    if isinstance(model, str | Path):
        model = load(model, device=request.device, fused=True)
        request = replace(request, model=model)
    if isinstance(model, Cascade):
        return CascadeChunks(request, model)
    for name in ("stages", "all_stages"):
        if getattr(request, name):
            raise UsageError(
                f"{name}= is for a cascade, and {type(model).__name__} is a single model; leave it out"
            )
    return SampleChunks(request)


def stage_seed(seed: int, number: int) -> int:
    """Returns the seed of the stage `number`, from 0: that of the request in the first stage, else a key of both."""
    return seed if number == 0 else step_key(seed, number, _SEEDS)


class CascadeChunks(SampleChunks):
    """A running request of a cascade: that of its last stage, which is told what the stages before it draw.

    A stage draws the images of a batch when the next one asks for them. Its noise is keyed by a seed of its own and the
    sample's index, so that a sample does not depend on the batch that it is drawn in.

    Args:
        request: of the cascade.
        cascade: its model.
    """

    def __init__(self, request: Request, cascade: Cascade) -> None:
        self._cascade, self._asked = cascade, request
        self._before: list[_Before] = []
        self._kept: list[Tensor] = []
        *earlier, last = _requests(request, cascade)
        self._levels = _levels(request, cascade)
        for number, of_stage in enumerate(earlier):
            with _saying(number):
                chunks = SampleChunks(self._told(number, of_stage), self._levels[number + 1].time)
            self._before.append(_Before(number, chunks))
        with _saying(len(earlier)):
            super().__init__(self._told(len(earlier), last))

    @property
    def before(self) -> Sequence[SampleChunks]:
        return [before.chunks for before in self._before]

    def collect(self) -> Samples:
        if self._asked.all_stages:
            self._kept = [before.chunks.empty(len(self.resolved.indices)) for before in self._before]
        return replace(super().collect(), stages=tuple(self._kept))

    @property
    def provenance(self) -> dict[str, Any]:
        """The record of the cascade: the last stage's, with what decides the images of every stage and its cost."""
        own = super().provenance
        records = [*(before.chunks.provenance for before in self._before), own]
        digests = " ".join(str(record["model"]["sha256"]) for record in records)
        return {
            **own,
            "model": {"name": self._cascade.name, "sha256": hashlib.sha256(digests.encode()).hexdigest()},
            **dict.fromkeys(_OF_A_STAGE),
            "cond": _given_to_all(self._asked, records),
            "seed": self._asked.seed,
            "nfe": sum(record["nfe"] for record in records),
            "stages": [
                {key: record[key] for key in (*_OF_A_STAGE, *_DECIDING)} | level.record
                for record, level in zip(records, self._levels, strict=True)
            ],
            "costs": [{key: record[key] for key in _COSTS} for record in records],
        }

    def _told(self, number: int, request: Request) -> Request:
        """The request of a stage with the images of the stage before it."""
        stage = self._cascade.stages[number]
        if stage.image is None:
            return request
        condition = stage.model.conditions[stage.image]
        assert isinstance(condition, ImageCondition)
        level = self._levels[number]
        handed = Handed(
            {},
            condition=condition,
            before=self._before[-1],
            clip=stage.clip,
            level=level,
            seed=stage_seed(self._asked.seed, number),
        )
        told = {} if stage.level is None else {stage.level: level.told}
        return replace(request, cond={**(request.cond or {}), stage.image: handed, **told})

    def _draw(self, chunk: Chunk) -> Tensor:
        drawn = super()._draw(chunk)
        if self._asked.all_stages:
            wanted = chunk.indices[chunk.rows]
            self.stages = tuple(before.images(wanted).clone() for before in self._before)
            for kept, images in zip(self._kept, self.stages, strict=False):
                kept[chunk.positions.to(kept.device)] = images
        return drawn


class _Before:
    """A stage that another one continues: its images are drawn when they are asked for, and those of a batch kept."""

    def __init__(self, number: int, chunks: SampleChunks) -> None:
        self.number, self.chunks = number, chunks
        self._places: dict[int, int] = {}
        self._images = torch.empty(0)

    def images(self, indices: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] of samples `indices` [B], on the device of the stage."""
        wanted = indices.tolist()
        if not self._places.keys() >= set(wanted):
            drawn = list(dict.fromkeys(wanted))
            with _saying(self.number):
                self._images = self.chunks.draw(drawn)
            self._places = {index: place for place, index in enumerate(drawn)}
        return self._images[[self._places[index] for index in wanted]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Handed(Prepared):
    """The images of the stage before as a value of an image condition; they are drawn when they are taken.

    Attributes:
        condition: whose value it is.
        before: the stage that draws them.
        clip: whether they are clamped to [−1, 1].
        level: of the noise on them.
        seed: of that noise.
    """

    condition: ImageCondition
    before: _Before
    clip: bool
    level: Level
    seed: int

    def __len__(self) -> int:
        return len(self.before.chunks.resolved.indices)

    @property
    def identity(self) -> str:
        clamped = ", clamped" if self.clip and self.level.time is None else ""
        return f"images of stage {self.before.number + 1}{clamped}"

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        images = self.before.images(indices).to(indices.device)
        if self.level.time is not None:
            return self._told(images * self.level.scale)
        told = self._told(images.clamp(-1, 1) if self.clip else images)
        name = self.condition.name
        return told | {name: with_noise(told[name], self.level.noise, self.seed, indices)}

    def example(self, device: torch.device) -> dict[str, Tensor]:
        return self._told(torch.zeros(1, *self.condition.shape, device=device))

    def to(self, device: torch.device) -> Handed:
        return self

    def _told(self, images: Tensor) -> dict[str, Tensor]:
        return dict(self.condition.told(images).tensors)


@dataclass(frozen=True)
class Level:
    """The noise on the images that a stage is told: √(1 − s²) x + s ξ.

    Attributes:
        noise: s.
        told: λ, as the model is told it; None where it is not.
        time: at which the stage before stops, so that its states are these images times 1/scale; None where it
            finishes.
        scale: 1/√(α² + σ²) of that time.
    """

    noise: float = 0.0
    told: float | None = None
    time: float | None = None
    scale: float = 1.0

    @property
    def record(self) -> dict[str, Any]:
        """Entries of the record of the stage: none where the model is told no level."""
        return {} if self.told is None else {"noise": self.noise, "stopped_at": self.time}


def _levels(request: Request, cascade: Cascade) -> list[Level]:
    """The noise on the images of every stage.

    Raises:
        UsageError: for a level that a stage cannot be told.
    """
    found = []
    for number, stage in enumerate(cascade.stages):
        own = (request.stages or {}).get(number + 1, {})
        asked = replace(stage, **{name: own[name] for name in OF_TOLD_IMAGES if name in own})
        before = cascade.stages[number - 1].model if number else None
        check_noise(number, asked, before)
        found.append(_level(asked, before))
    return found


def _level(stage: Stage, before: Denoiser | None) -> Level:
    if stage.level is None or before is None:
        return Level()
    condition = stage.model.conditions[stage.level]
    assert isinstance(condition, ScalarCondition)
    if not stage.truncated or not stage.noise:
        return Level(float(stage.noise), told_log_snr(condition, stage.noise))
    process = before.process
    time = process.time_of_log_snr(log_snr_of(torch.tensor(float(stage.noise), dtype=torch.float64)))
    if process.table is not None:
        # A table has the level that is next to it and no noisier.
        time = (time * process.table + 1e-6).floor().clamp_min(1) / process.table
    noise = float(level_of(process.log_snr(time)))
    alpha, sigma = process.alpha_sigma(time)
    return Level(
        noise,
        told_log_snr(condition, noise),
        float(time),
        float((alpha.square() + sigma.square()).rsqrt()),
    )


def _requests(request: Request, cascade: Cascade) -> list[Request]:
    """The request of every stage, without the images of the stage before.

    Raises:
        UsageError: for an option that belongs to one model, a stage or a condition that the cascade does not have.
    """
    for name in _OF_ONE_MODEL:
        given = getattr(request, name)
        # A kind of noise is for every stage, with its own seed; a source is of one state's shape.
        if given is not None and not (name == "noise" and isinstance(given, str)):
            own = name in OF_STAGES
            cure = f"stages={{1: {{{name!r}: …}}}} (--stage 1:{name}=…)" if own else "one of its models alone"
            raise UsageError(f"{name}= is for one model, and this is a cascade; give {cure}")
    options = request.stages or {}
    for number in options:
        if number > len(cascade.stages):
            raise UsageError(f"stages: there is no stage {number}; the cascade has {len(cascade.stages)}")
    for name in request.cond or {}:
        if name not in cascade.conditions:
            known = ", ".join(cascade.conditions) or "none"
            raise UsageError(f"unknown condition {name!r}; the stages of this cascade take: {known}")
    return [
        _of_stage(request, stage, number, options.get(number + 1, {}), last=number + 1 == len(cascade.stages))
        for number, stage in enumerate(cascade.stages)
    ]


def _of_stage(request: Request, stage: Stage, number: int, own: Mapping[str, Any], last: bool) -> Request:
    taken = {name: value for name, value in (request.cond or {}).items() if _takes(stage, name)}
    options: dict[str, Any] = {
        "sampler": stage.sampler,
        "steps": stage.steps,
        "guidance": stage.guidance,
        **{name: value for name, value in own.items() if name not in OF_TOLD_IMAGES},
    }
    options |= {"cond": {**stage.cond, **taken, **own.get("cond", {})}, "stages": None, "all_stages": False}
    if not last:
        options |= {"callback": None, "progress": False, "trajectory": False}
    return replace(request, model=stage.model, seed=stage_seed(request.seed, number), **options)


def _takes(stage: Stage, name: str) -> bool:
    return name in stage.model.conditions and name not in (stage.image, stage.level)


def _given_to_all(request: Request, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The conditions of a request as the records of the stages that take them hold them."""
    return {
        name: next(record["cond"][name] for record in records if name in record["cond"])
        for name in request.cond or {}
    }


@contextmanager
def _saying(number: int) -> Iterator[None]:
    """Lets an error say which stage it is about."""
    try:
        yield
    except TrilemmaError as error:
        raise type(error)(f"stage {number + 1}: {error}") from error
