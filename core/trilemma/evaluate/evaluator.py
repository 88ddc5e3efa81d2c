"""One data set, one feature network and a list of metrics, with the reference side computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate.metric import Accumulator, AnyMetric, FeatureNetwork

METRICS = ("frechet", "precision", "recall", "class-agreement")
BASELINE_IMAGES = 10_000
OTHER_SPLIT = {"train": "test", "test": "train"}
BATCH = 500


class LabelledImages(Protocol):
    """A split of a data set in memory."""

    images: Tensor
    labels: Tensor


def strided(count: int, total: int) -> Tensor:
    """`count` indices spread evenly over 0 .. total − 1: ⌊i total / count⌋; all of them where there are fewer."""
    count = min(count, total)
    return torch.arange(count) * total // max(count, 1)


def pixels_of(images: Tensor) -> Tensor:
    """8-bit images as pixels in [-1, 1]: x/127.5 − 1."""
    return images.float() / 127.5 - 1


def to_eight_bits(samples: Tensor) -> Tensor:
    """Samples in [-1, 1] as a picture file would hold them, uint8: what the reference images went through.

    Raises:
        TrilemmaError: for samples that are not finite.
    """
    if not samples.isfinite().all():
        raise TrilemmaError("the samples hold NaN or infinite pixels; there is nothing to evaluate")
    return ((samples.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


@dataclass(frozen=True)
class Evaluator:
    """Compares sets of images with one split of a data set.

    The reference split is read at first use and its accumulators are kept, so that one evaluator serves many
    models and samplers. Nothing but the reference side ever sees the reference split.

    Args:
        dataset: spec of a labelled data set that has the splits `train` and `test`.
        features: spec of a feature network.
        metrics: specs of metrics.
        reference: the split the samples are compared with.
    """

    dataset: str = "mnist"
    features: str = "mnist-features"
    metrics: Sequence[str] = METRICS
    reference: str = "train"

    def __post_init__(self) -> None:
        if self.reference not in OTHER_SPLIT:
            raise UsageError(f"unknown reference split {self.reference!r}; expected train or test")
        if not self.metrics:
            raise UsageError("no metric was given; name at least one, for example frechet")

    @cached_property
    def network(self) -> FeatureNetwork:
        """The feature network."""
        network, spec = lookup.build("metric", self.features)
        if not isinstance(network, FeatureNetwork):
            raise UsageError(f"{spec} is not a feature network but a metric; give it with --metric")
        return network

    @cached_property
    def components(self) -> dict[str, AnyMetric]:
        """The metrics by their canonical specs."""
        found: dict[str, AnyMetric] = {}
        for given in self.metrics:
            metric, spec = lookup.build("metric", given)
            if isinstance(metric, FeatureNetwork):
                raise UsageError(f"{spec} is a feature network, not a metric; give it with --features")
            found[spec] = metric
        return found

    def split(self, name: str) -> LabelledImages:
        """The images and labels of a split."""
        data, _ = lookup.build("dataset", self.dataset, split=name)
        result: LabelledImages = data
        return result

    @cached_property
    def accumulated_reference(self) -> dict[str, Accumulator]:
        """Every metric's accumulator of the reference split, from one pass over it."""
        data = self.split(self.reference)
        total = len(data.images)
        filled: dict[str, Accumulator] = {}
        wanted: dict[str, Tensor] = {}
        for spec, metric in self.components.items():
            filled[spec] = metric.accumulator()
            wanted[spec] = torch.zeros(total, dtype=torch.bool)
            limit = total if metric.reference_images is None else metric.reference_images
            wanted[spec][strided(limit, total)] = True
        anyone = torch.stack(list(wanted.values())).any(0)
        for chosen in anyone.nonzero().flatten().split(BATCH):
            batch = self.network.observe(pixels_of(data.images[chosen]), data.labels[chosen])
            for spec, accumulator in filled.items():
                accumulator.update(batch.rows(wanted[spec][chosen]))
        return filled

    @cached_property
    def reference_counts(self) -> dict[str, int]:
        """How many reference images each metric takes."""
        total = len(self.split(self.reference).images)
        limits = {spec: metric.reference_images for spec, metric in self.components.items()}
        return {spec: total if limit is None else min(limit, total) for spec, limit in limits.items()}

    def measure(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> dict[str, float | None]:
        """The metrics of a stream of 8-bit images [B, C, H, W] and labels [B]; only accumulators are kept."""
        filled = {spec: metric.accumulator() for spec, metric in self.components.items()}
        for images, labels in batches:
            batch = self.network.observe(pixels_of(images), labels)
            for accumulator in filled.values():
                accumulator.update(batch)
        reference = self.accumulated_reference
        return {spec: m.value(reference[spec], filled[spec]) for spec, m in self.components.items()}

    @cached_property
    def baseline(self) -> dict[str, Any]:
        """The metrics of real images: those of the other split, at most 10,000, against the reference split."""
        split = OTHER_SPLIT[self.reference]
        data = self.split(split)
        chosen = strided(BASELINE_IMAGES, len(data.images))
        values = self.measure((data.images[rows], data.labels[rows]) for rows in chosen.split(BATCH))
        return {"split": split, "images": len(chosen), "metrics": values}

    def describe(self) -> dict[str, Any]:
        """What the numbers were measured with, for the record."""
        return {
            "dataset": self.dataset,
            "features": self.network.identity,
            "reference": {"split": self.reference, "images": self.reference_counts},
        }
