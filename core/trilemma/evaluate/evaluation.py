"""Evaluation of a model: samples are drawn, measured as they come, and not kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from trilemma.evaluate.evaluator import Evaluator, stratified, to_eight_bits
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.column import Column
from trilemma.interfaces.condition import LABEL, ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.building import build_alike
from trilemma.models.cascade import Cascade
from trilemma.models.loading import load

Model = TypeVar("Model", Denoiser, Autoencoder)


def evaluate(request: Request, evaluator: Evaluator) -> dict[str, Any]:
    """Returns the metrics of the samples of a request, with everything that decides them.

    Where the request names no condition, a model that takes some is given the values of the training split, its classes
    in their proportions: sample i gets those of entry ⌊i N/n⌋ of the N training images sorted by class, and its label
    is the one that it was asked to have, by whatever condition. Of its other conditions it is given the values that the
    evaluator has. Samples are rounded to 8 bits, as the reference images are, and measured batch by batch, so that
    memory does not grow with n. The states are in float32 unless the request says otherwise.

    Args:
        request: of a model in evaluation mode, in any dtype.
        evaluator: what to measure with.

    Returns:
        A record that can be written as JSON; `metrics` maps the specs of metrics to their values, and `of_the_model`
        the specs of metrics that need no samples to all their numbers.

    Raises:
        TrilemmaError: as `trilemma.sample` does, and where a metric refuses the samples.
    """
    asked = _asked(request, evaluator)
    model, chunks = asked.model, asked.chunks
    values = evaluator.measure(_looked_at(chunks, asked.labels))
    record = dict(chunks.provenance)
    record["cond"] = asked.told or record["cond"] or None
    record |= {**evaluator.describe(), "splits": evaluator.describe_splits(model), "metrics": values}
    alone = (
        {}
        if isinstance(model, Cascade)
        else evaluator.measure_model(model, asked.n, request.batch_size, request.seed)
    )
    return record | {"of_the_model": alone}


def check_request(request: Request, evaluator: Evaluator) -> None:
    """Checks that `evaluate` could draw a request's samples; reads the data set and draws none.

    Raises:
        TrilemmaError: as `trilemma.sample` does, and for a model that the evaluator does not measure.
    """
    _asked(request, evaluator)


class _Asked(NamedTuple):
    """The samples of an evaluation, not drawn yet: their labels, and which conditions they are given, in words."""

    model: Denoiser | Cascade
    n: int
    chunks: SampleChunks
    labels: Tensor | None
    told: str


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
    given, labels = _training_values(model, evaluator, n) if request.cond is None else ({}, None)
    more = dict(evaluator.cond) if request.cond is None else {}
    if known := given.keys() & more.keys():
        raise UsageError(
            f"the data set {evaluator.dataset} gives the values of {', '.join(sorted(known))}; leave them out"
        )
    cond = {**given, **more} or request.cond
    chunks = chunks_of(replace(request, model=model, cond=cond, dtype=request.dtype or torch.float32))
    return _Asked(model, n, chunks, labels, _described(given, more))


def _training_values(
    model: Denoiser | Cascade, evaluator: Evaluator, n: int
) -> tuple[dict[str, Any], Tensor | None]:
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


def _described(given: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    names = " and ".join("labels" if name == LABEL else name for name in given)
    training = [f"the training {names}, in their proportions"] if given else []
    return "; ".join([*training, *(f"{name}={value}" for name, value in more.items())])


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


def _looked_at(chunks: SampleChunks, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    for indices, samples in chunks:
        yield to_eight_bits(samples), None if labels is None else labels[indices.cpu()]
