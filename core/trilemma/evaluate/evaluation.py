"""Evaluation of a model: samples are drawn, measured as they come, and not kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.engine.cascade import chunks_of
from trilemma.engine.provenance import describe_model
from trilemma.engine.request import Request
from trilemma.engine.resolve import resolved_model
from trilemma.engine.sampling import SampleChunks
from trilemma.errors import UsageError
from trilemma.evaluate.evaluator import Evaluator, stratified, to_eight_bits
from trilemma.interfaces.column import Column
from trilemma.interfaces.condition import LABEL, ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.building import build_alike


def evaluate(request: Request, evaluator: Evaluator) -> dict[str, Any]:
    """Returns the metrics of the samples of a request, with everything that decides them.

    Where the request names no condition, a model that takes some is given the values of the training split, its classes
    in their proportions: sample i gets those of entry ⌊i N/n⌋ of the N training images sorted by class, and its label
    is the one that it was asked to have, by whatever condition. Samples are rounded to 8 bits, as the reference images
    are, and measured batch by batch, so that memory does not grow with n. The states are in float32 unless the request
    says otherwise.

    Args:
        request: of a model in evaluation mode, in any dtype.
        evaluator: what to measure with.

    Returns:
        A record that can be written as JSON; `metrics` maps the specs of metrics to their values, and `of_the_model`
        the specs of metrics that need no samples to all their numbers.

    Raises:
        TrilemmaError: as `trilemma.sample` does, and where a metric refuses the samples.
    """
    n = checked_integer(request.n, "n", 1, what="is not a number of samples")
    model = resolved_model(request.model, request.device)
    evaluator.check(model)
    given, labels = _training_values(model, evaluator, n) if request.cond is None else ({}, None)
    cond = given or request.cond
    chunks = chunks_of(replace(request, model=model, cond=cond, dtype=request.dtype or torch.float32))
    values = evaluator.measure(_looked_at(chunks, labels))
    record = dict(chunks.provenance)
    record["cond"] = _described(given) if given else record["cond"] or None
    record |= {**evaluator.describe(), "splits": evaluator.describe_splits(model), "metrics": values}
    return record | {"of_the_model": evaluator.measure_model(model, n, request.batch_size, request.seed)}


def _training_values(model: Denoiser, evaluator: Evaluator, n: int) -> tuple[dict[str, Any], Tensor | None]:
    """The values of n training images for each condition of the model that the data have, and their labels."""
    training, labels = evaluator.split("train"), evaluator.training_labels
    columns: Mapping[str, Column] = getattr(training, "columns", {})
    rows = stratified(labels, n) if len(labels) else labels
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


def _described(given: Mapping[str, Any]) -> str:
    names = " and ".join("labels" if name == LABEL else name for name in given)
    return f"the training {names}, in their proportions"


def evaluate_model(
    model: Denoiser, evaluator: Evaluator, *, n: int = 10_000, batch_size: int = 250, seed: int = 0
) -> dict[str, Any]:
    """Measures a model by metrics that draw no samples, where an evaluator has no others; `of_the_model` in the record.

    Args:
        n: images of the split that is not the reference, at most all.
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


def untrained(model: Denoiser, seed: int) -> Denoiser:
    """Returns a fresh initialisation, decided by `seed`, of the network that a model's card describes.

    Raises:
        UsageError: for a model that was not loaded from a model directory.
    """
    if model.card is None:
        raise UsageError(
            "this model has no card to build an untrained one from; give a model's name or directory"
        )
    fresh: Denoiser = build_alike(model, model.card, seed)
    fresh.card = {**model.card, "weights": {"file": None, "sha256": None}}
    like = model.own_tensors()[0]
    return fresh.to(like.device, like.dtype).eval().requires_grad_(False)


def _looked_at(chunks: SampleChunks, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    for indices, samples in chunks:
        yield to_eight_bits(samples), None if labels is None else labels[indices.cpu()]
