"""Evaluation of a model: samples are drawn, measured as they come, and not kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.engine.cascade import chunks_of
from trilemma.engine.provenance import describe_model
from trilemma.engine.request import Request
from trilemma.engine.resolve import resolved_model
from trilemma.engine.sampling import SampleChunks
from trilemma.errors import UsageError
from trilemma.evaluate.evaluator import BATCH, Batch, Evaluator, stratified, to_eight_bits
from trilemma.evaluate.splits import LabelledImages
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.column import Column
from trilemma.interfaces.condition import LABEL, ClassCondition, ImageCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.metric import values_at
from trilemma.models.building import build_alike
from trilemma.models.cascade import Cascade
from trilemma.models.loading import load
from trilemma.numerics.resizing import resized

Model = TypeVar("Model", Denoiser, Autoencoder)

# How the images that a model is told are resized, beside its samples.
BASELINE_RULE = "bicubic"


def evaluate(request: Request, evaluator: Evaluator) -> dict[str, Any]:
    """Returns the metrics of the samples of a request, with everything that decides them.

    Where the request names no condition, a model that takes some is given the values of the evaluator's `told_split`,
    its classes in their proportions: sample i gets those of entry ⌊i N/n⌋ of the N images of this split sorted by
    class, its label is the one that it was asked to have, by whatever condition, and metrics of pairs compare it with
    that image. Of its other conditions it is given the values that the evaluator has. Samples are rounded to 8 bits, as
    the reference images are, and measured batch by batch, so that memory does not grow with n. The states are in
    float32 unless the request says otherwise.

    Args:
        request: of a model in evaluation mode, in any dtype.
        evaluator: what to measure with.

    Returns:
        A record that can be written as JSON; `metrics` maps the specs of metrics to their values, and `of_the_model`
        the specs of metrics that need no samples to all their numbers. Where pairs are measured, `enlarged` has the
        metrics of the images that the model was told, resized by the rule `by`: what it has to be better than.

    Raises:
        TrilemmaError: as `trilemma.sample` does, and where a metric refuses the samples.
    """
    asked = _asked(request, evaluator)
    model, chunks = asked.model, asked.chunks
    values = evaluator.measure(asked.looked_at())
    record = dict(chunks.provenance)
    record["cond"] = asked.told or record["cond"] or None
    record |= {**evaluator.describe(), "splits": evaluator.describe_splits(model), "metrics": values}
    alone = (
        {}
        if isinstance(model, Cascade)
        else evaluator.measure_model(model, asked.n, request.batch_size, request.seed)
    )
    if asked.paired is not None:
        record["enlarged"] = {"by": BASELINE_RULE, "metrics": evaluator.measure(asked.enlarged())}
    return record | {"of_the_model": alone}


def check_request(request: Request, evaluator: Evaluator) -> None:
    """Checks that `evaluate` could draw a request's samples; reads the data set and draws none.

    Raises:
        TrilemmaError: as `trilemma.sample` does, and for a model that the evaluator does not measure.
    """
    _asked(request, evaluator)


@dataclass(frozen=True)
class _Paired:
    """The images that samples are drawn for, and those that the model is told.

    Attributes:
        split: of the data set.
        rows: of the split, one a sample: int64 [n].
        told: column of the images that the model is told.
    """

    split: LabelledImages
    rows: Tensor
    told: Column


class _Asked(NamedTuple):
    """The samples of an evaluation, not drawn yet: labels, values of conditions, and in words which ones they are."""

    model: Denoiser | Cascade
    n: int
    chunks: SampleChunks
    labels: Tensor | None
    values: Mapping[str, Any]
    told: str
    paired: _Paired | None

    def looked_at(self) -> Iterator[Batch]:
        """Draws the samples."""
        for indices, samples in self.chunks:
            at = indices.cpu()
            labels = None if self.labels is None else self.labels[at]
            others = None if self.paired is None else self.paired.split.read(self.paired.rows[at])
            yield Batch(to_eight_bits(samples), labels, others, values_at(self.values, at))

    def enlarged(self) -> Iterator[Batch]:
        """Resizes the images that the model is told."""
        assert self.paired is not None
        size = tuple(self.model.image_shape[1:])
        for at in torch.arange(self.n).split(BATCH):
            rows = self.paired.rows[at]
            large = resized(self.paired.told.at(rows).float(), (size[0], size[1]), BASELINE_RULE)
            labels = None if self.labels is None else self.labels[at]
            others = self.paired.split.read(rows)
            yield Batch(large.round().to(torch.uint8), labels, others, values_at(self.values, at))


def _asked(request: Request, evaluator: Evaluator) -> _Asked:
    n = checked_integer(request.n, "n", 1, what="is not a number of samples")
    model = request.model
    if isinstance(model, str | Path):
        model = load(model, device=request.device, fused=True)
    if not isinstance(model, Cascade):
        model = resolved_model(model, request.device)
    elif evaluator.of_the_model:
        raise UsageError(
            f"{', '.join(evaluator.of_the_model)} measures a single model, and this is a cascade; leave it out"
        )
    evaluator.check(model)
    rows = _rows(model, evaluator, n) if request.cond is None else None
    given, labels = ({}, None) if rows is None else _values(model, evaluator, rows)
    more = dict(evaluator.cond) if request.cond is None else {}
    if known := given.keys() & more.keys():
        raise UsageError(
            f"the data set {evaluator.dataset} gives the values of {', '.join(sorted(known))}; leave them out"
        )
    cond = {**given, **more} or request.cond
    chunks = chunks_of(replace(request, model=model, cond=cond, dtype=request.dtype or torch.float32))
    paired = _paired(model, evaluator, rows, given) if evaluator.pairs else None
    beside = {
        name: entry
        for name, entry in given.items()
        if name != LABEL and not isinstance(model.conditions[name], ImageCondition)
    }
    told = _described(evaluator.told_split, given, more)
    return _Asked(model, n, chunks, labels, beside, told, paired)


def _rows(model: Denoiser | Cascade, evaluator: Evaluator, n: int) -> Tensor:
    """The images of the split whose values the samples are given, in the proportions of its classes: int64 [n]."""
    split = evaluator.split(evaluator.told_split)
    # A split without classes has the label 0 for all its images.
    return stratified(split.labels, n) if len(split.labels) else split.labels


def _values(
    model: Denoiser | Cascade, evaluator: Evaluator, rows: Tensor
) -> tuple[dict[str, Any], Tensor | None]:
    """The values of these images for each condition of the model that the data have, and their labels."""
    split = evaluator.split(evaluator.told_split)
    labels = split.labels
    columns: Mapping[str, Column] = getattr(split, "columns", {})
    given: dict[str, Any] = {}
    for name, condition in model.conditions.items():
        if name == LABEL and isinstance(condition, ClassCondition):
            if len(labels) and int(labels.max()) >= condition.size:
                raise UsageError(
                    f"data set {evaluator.dataset} has {int(labels.max()) + 1} classes, the model {condition.size}; "
                    "give another as --dataset"
                )
            given[name] = labels[rows]
        elif name in columns:
            given[name] = columns[name].known(rows)
    return given, labels[rows] if LABEL in {*given, *(columns if given else ())} else None


def _paired(
    model: Denoiser | Cascade, evaluator: Evaluator, rows: Tensor | None, given: Mapping[str, Any]
) -> _Paired:
    """The images that the samples are drawn for.

    Raises:
        UsageError: where the model is told no images of the data set.
    """
    split = evaluator.split(evaluator.told_split)
    told = [name for name in given if isinstance(model.conditions[name], ImageCondition)]
    if rows is None or len(told) != 1:
        raise UsageError(
            f"{', '.join(evaluator.pairs)} compares samples with the images that they are drawn for, and the model is "
            f"told {len(told)} images of {evaluator.dataset}; leave it out, or give a data set with the model's images"
        )
    columns: Mapping[str, Column] = getattr(split, "columns", {})
    return _Paired(split, rows, columns[told[0]])


def _described(split: str, given: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    names = " and ".join("labels" if name == LABEL else name for name in given)
    words = "training" if split == "train" else split
    told = [f"the {words} {names}, in their proportions"] if given else []
    return "; ".join([*told, *(f"{name}={value}" for name, value in more.items())])


def evaluate_model(
    model: Denoiser | Autoencoder,
    evaluator: Evaluator,
    *,
    n: int = 10_000,
    batch_size: int = 250,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures a model by metrics that draw no samples, where an evaluator has no others; `of_the_model` in the record.

    Args:
        n: images of the split that `Evaluator.measured_split` says, at most all.
        seed: of every random draw.

    Raises:
        UsageError: for fewer than one image.
        TrilemmaError: where a metric refuses the model.
    """
    n = checked_integer(n, "n", 1, what="is no number of images")
    evaluator.check(model)
    measured = evaluator.measured_split(model)
    return {
        "model": describe_model(model),
        "n": min(n, len(evaluator.split(measured).labels)),
        "seed": seed,
        "threads": torch.get_num_threads(),
        **evaluator.describe(),
        "splits": evaluator.describe_splits(model),
        "measured": measured,
        "metrics": {},
        "of_the_model": evaluator.measure_model(model, n, batch_size, seed),
    }


def load_measured(
    model: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **given: Any,
) -> tuple[Any, Evaluator]:
    """Returns a model, loaded to be measured, and the evaluator that its card names.

    Args:
        model: name or directory.
        device, dtype: as in `trilemma.load`.
        given: what replaces values of the card; see `Evaluator.of`.

    Raises:
        TrilemmaError: as `trilemma.load` and `Evaluator.of` do.
    """
    network = load(model, device=device, dtype=dtype, fused=True)
    evaluator = Evaluator.of(network, **given)
    # Metrics of the model differentiate the network, and its fused operators have no derivative.
    return load(model, device=device, dtype=dtype) if evaluator.of_the_model else network, evaluator


def untrained(model: Model, seed: int) -> Model:
    """Returns a fresh initialisation, decided by `seed`, of the network that a model's card describes.

    Raises:
        UsageError: for a model that was not loaded from a model directory.
    """
    if model.card is None:
        raise UsageError(
            "this model has no card to build an untrained one from; give a model's name or directory"
        )
    fresh: Model = build_alike(model, model.card, seed)
    fresh.card = {**model.card, "weights": {"file": None, "sha256": None}}
    like = model.own_tensors()[0] if isinstance(model, Denoiser) else next(iter(model.state_dict().values()))
    return fresh.to(like.device, like.dtype).eval().requires_grad_(False)
