"""Measure a model: draw samples, look at them as they come, keep only what the metrics need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.engine.provenance import describe_model
from trilemma.engine.sampling import SampleChunks, sample_chunks
from trilemma.errors import UsageError
from trilemma.evaluate.evaluator import Evaluator, stratified, to_eight_bits
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.sampler import Sampler
from trilemma.models.card import build_denoiser

LABELLED_BY = "class"  # the condition that means the data set's label


def evaluate(
    model: Denoiser,
    evaluator: Evaluator,
    *,
    sampler: Sampler | str | None = None,
    steps: int = 50,
    guidance: Guidance | str | None = None,
    n: int = 10_000,
    batch_size: int = 250,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """The metrics of n samples of a model, with everything that decides them.

    A model with the condition `class` is asked for the classes of the training split in their proportions:
    sample i gets entry ⌊i N/n⌋ of the N training labels sorted by class. Samples are rounded to 8 bits, as
    the reference images are, and looked at batch by batch, so that memory does not grow with them.

    Args:
        model: a denoiser in evaluation mode, in any dtype; the state is float32.
        evaluator: what to measure with.
        sampler, steps, guidance, seed: as in `trilemma.sample`.
        n: number of samples.
        batch_size: samples in one call of the network.
        progress: show a progress bar on stderr.

    Returns:
        A record that can be written as JSON; `metrics` maps the metrics' specs to their values, `of_the_model` those of
        metrics that need no samples to all that they found.

    Raises:
        TrilemmaError: as `trilemma.sample` does, and where a metric refuses the samples.
    """
    n = checked_integer(n, "n", 1, what="is not a number of samples")
    evaluator.check(model)
    labels = None
    if LABELLED_BY in model.conditions:
        training = evaluator.training_labels
        size = model.conditions[LABELLED_BY].size
        if len(training) and int(training.max()) >= size:
            raise UsageError(
                f"data set {evaluator.dataset} has {int(training.max()) + 1} classes, the model {size}; "
                "give another as --dataset"
            )
        labels = training[stratified(training, n)]
    chunks = sample_chunks(
        model,
        n,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        cond=None if labels is None else {LABELLED_BY: labels},
        seed=seed,
        batch_size=batch_size,
        dtype=torch.float32,
        progress=progress,
    )
    values = evaluator.measure(_looked_at(chunks, labels))
    record = dict(chunks.provenance)
    record["cond"] = "the training labels, in their proportions" if labels is not None else None
    record |= {**evaluator.describe(), "splits": evaluator.describe_splits(model), "metrics": values}
    return record | {"of_the_model": evaluator.measure_model(model, n, batch_size, seed)}


def evaluate_model(
    model: Denoiser, evaluator: Evaluator, *, n: int = 10_000, batch_size: int = 250, seed: int = 0
) -> dict[str, Any]:
    """What the metrics that draw no samples find, of an evaluator that has no other; `of_the_model` in the record.

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
    """A fresh initialisation, decided by `seed`, of the network a model's card describes.

    Raises:
        UsageError: for a model that was not loaded from a model directory.
    """
    if model.card is None:
        raise UsageError(
            "this model has no card to build an untrained one from; give a model's name or directory"
        )
    fresh = build_denoiser(model.card, seed)
    fresh.card = {**model.card, "weights": {"file": None, "sha256": None}}
    like = model.own_tensors()[0]
    return fresh.to(like.device, like.dtype).eval().requires_grad_(False)


def _looked_at(chunks: SampleChunks, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    for indices, samples in chunks:
        yield to_eight_bits(samples), None if labels is None else labels[indices.cpu()]
