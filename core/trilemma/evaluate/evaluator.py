"""One data set, one feature network and a list of metrics, with the reference side computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate.splits import HELD_OUT_RULE, LabelledImages, Splits, Training
from trilemma.files.paths import user_path
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.column import Column, ImageColumn
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.features import Features
from trilemma.interfaces.metric import (
    Accumulator,
    AnyMetric,
    FeatureNetwork,
    ModelMetric,
    Observation,
    PairMetric,
)
from trilemma.machine.memory import check_memory
from trilemma.models.cascade import Cascade
from trilemma.models.loading import load_of
from trilemma.models.places import is_model
from trilemma.registry import building, catalog
from trilemma.registry.spec import parse_spec

# Of models without samples.
METRICS_OF_CODES = ("reconstruction",)
METRICS = ("frechet", "precision", "recall", "class-agreement")
BASELINE_IMAGES = 10_000
OTHER_SPLIT = {"train": "test", "test": "train"}
BATCH = 500


class Batch(NamedTuple):
    """Some images to measure, and what they were asked to be.

    Attributes:
        images: uint8 [B, C, H, W].
        labels: int64 [B]; None for none.
        others: the images [B, C, H, W] that these were drawn for; None for none.
        told: other values of the B images by the name of the condition, such as texts.
    """

    images: Tensor
    labels: Tensor | None = None
    others: Tensor | None = None
    told: Mapping[str, Any] = MappingProxyType({})


class _Mean:
    """The mean of a stream of numbers."""

    def __init__(self) -> None:
        self.count, self._sum = 0, 0.0

    def update(self, numbers: Tensor) -> None:
        self.count += len(numbers)
        self._sum += float(numbers.double().sum())

    @property
    def value(self) -> float:
        return self._sum / self.count


@dataclass(frozen=True)
class Evaluator:
    """Compares sets of images with one split of a data set.

    The reference split is read at first use and its accumulators are kept, so that one evaluator serves many
    models and samplers. Training images serve as the reference only and are never measured.

    Args:
        dataset: spec of a labelled data set; one without the splits `train` and `test` is split by `splits.RULE`.
        features: spec of a feature network, or a trained one by its name or directory; None for the first of the
            registered default ones that takes the images.
        metrics: specs of metrics.
        reference: the split the samples are compared with.
        cond: values of those conditions of the model that the data set does not give, by name.
        training: of the model to measure. For a data set without splits, the part held out of this training is `test`.
        measured: the split, such as `test`, whose values the samples are given, see `told_split`, and that metrics
            without samples are measured on, see `measured_split`.

    Raises:
        UsageError: for an unknown split, or no metric at all.
    """

    dataset: str
    features: str | None = None
    metrics: Sequence[str] = METRICS
    reference: str = "train"
    cond: Mapping[str, Any] = field(default_factory=dict)
    training: Training | None = None
    measured: str | None = None

    @classmethod
    def of(
        cls,
        model: Denoiser | Autoencoder,
        dataset: str | None = None,
        features: str | None = None,
        metrics: Sequence[str] | None = None,
        reference: str | None = None,
        measured: str | None = None,
    ) -> Evaluator:
        """Builds the evaluator that a model's card names; what is given here takes precedence over the card.

        Where a part of the data was held out of the training, the reference is, unless it is given, a split without the
        images that were trained on.

        Raises:
            UsageError: where neither names a data set, and as the constructor does.
        """
        card = model.card or {}
        advised = card.get("evaluation", {})
        named = dataset or advised.get("dataset") or card.get("data", {}).get("dataset")
        if not named:
            raise UsageError("the model's card names no data set; give one as --dataset")
        usual = METRICS_OF_CODES if isinstance(model, Autoencoder) else METRICS
        made = cls(
            named,
            features or advised.get("features"),
            as_advised(metrics, advised.get("metrics", usual)),
            reference or advised.get("reference", "train"),
            advised.get("cond", {}),
            Training.of(card),
            measured,
        )
        if not reference and "reference" not in advised and made._tests_are_new():
            # The data set is read already.
            unseen = replace(made, reference="test")
            vars(unseen)["splits"] = made.splits
            return unseen
        return made

    def with_cond(self, cond: Mapping[str, Any]) -> Evaluator:
        """Returns this evaluator with other values of `cond`; it keeps the reference side where that is computed."""
        made = replace(self, cond=cond)
        vars(made).update({name: kept for name, kept in vars(self).items() if name not in vars(made)})
        return made

    def _tests_are_new(self) -> bool:
        """Returns whether part of the data was held out of the training and none of its images was trained on."""
        if self.training is None or not self.training.held_out:
            return False
        try:
            self.split("test")
        except TrilemmaError:
            return False
        return self.splits.rule == HELD_OUT_RULE or self.splits.trained_on(self.training) == ["train"]

    def check(self, model: Denoiser | Autoencoder | Cascade) -> None:
        """Refuses a model whose samples are no images of the data set and the feature network.

        Raises:
            UsageError: where shapes differ, or labels are not among the model's classes, and for a metric that does not
                measure such a model.
        """
        for spec, metric in self.of_the_model.items():
            if not isinstance(model, metric.measures):
                raise UsageError(
                    f"{spec} does not measure a {type(model).__name__}; give another as --metric"
                )
        data = self.split(self.reference)
        shape = tuple(model.image_shape)
        if _shape_of(data) != shape:
            raise UsageError(
                f"the data set {self.dataset} has images of shape {_shape_of(data)}, the model's samples are {shape}; "
                "give another as --dataset"
            )
        if self.network_is_asked and not self.network.takes(shape):
            raise UsageError(
                f"the feature network {self.features} takes no images of shape {shape}, which the model's samples are; "
                "give another as --features"
            )

    def __post_init__(self) -> None:
        if self.reference not in OTHER_SPLIT:
            raise UsageError(f"unknown reference split {self.reference!r}; give train or test")
        if not self.metrics:
            raise UsageError("no metric was given; name at least one, for example frechet")

    @cached_property
    def network(self) -> FeatureNetwork:
        """The feature network."""
        return feature_network(self.features, _shape_of(self.split(self.reference)))

    @cached_property
    def components(self) -> dict[str, AnyMetric | PairMetric | ModelMetric]:
        """The metrics by the specs they were given by."""
        found: dict[str, AnyMetric | PairMetric | ModelMetric] = {}
        for given in self.metrics:
            metric, spec = lookup.build("metric", given)
            if isinstance(metric, FeatureNetwork):
                raise UsageError(
                    f"{spec} is a feature network, not a metric; name a metric, for example frechet"
                )
            if isinstance(metric, ModelMetric):
                metric = metric.seen_by(self.features)
            found[given if isinstance(given, str) else spec] = metric
        return found

    @cached_property
    def comparisons(self) -> dict[str, AnyMetric]:
        """Those of the metrics that compare samples with the reference."""
        return {spec: m for spec, m in self.components.items() if not isinstance(m, ModelMetric | PairMetric)}

    @cached_property
    def pairs(self) -> dict[str, PairMetric]:
        """Those of the metrics that compare each sample with the image that it was drawn for."""
        return {spec: m for spec, m in self.components.items() if isinstance(m, PairMetric)}

    @property
    def of_samples(self) -> bool:
        """Says whether one of the metrics needs samples."""
        return bool(self.comparisons or self.pairs)

    @property
    def network_is_asked(self) -> bool:
        """Says whether one of the metrics needs the feature network."""
        return bool(self.comparisons) or any(metric.takes_features for metric in self.pairs.values())

    @property
    def told_split(self) -> str:
        """The split whose values the samples are given: `measured`, else test where pairs are measured, else train."""
        return self.measured or ("test" if self.pairs else "train")

    @cached_property
    def of_the_model(self) -> dict[str, ModelMetric]:
        """Those of the metrics that need no samples."""
        return {spec: m for spec, m in self.components.items() if isinstance(m, ModelMetric)}

    @cached_property
    def splits(self) -> Splits:
        """The splits of the data set, each read once."""
        return Splits(self.dataset, lookup.build, self.training)

    def split(self, name: str) -> LabelledImages:
        """Returns the images and labels of a split, read once."""
        return self.splits.part(name)

    @cached_property
    def reference_counts(self) -> dict[str, int]:
        """The number of reference images that each metric takes."""
        total = len(self.split(self.reference).labels)
        limits = {spec: metric.reference_images for spec, metric in self.comparisons.items()}
        return {spec: total if limit is None else min(limit, total) for spec, limit in limits.items()}

    @cached_property
    def accumulated_reference(self) -> dict[str, Accumulator]:
        """Every metric's accumulator of the reference split, from one pass over it."""
        data = self.split(self.reference)
        filled: dict[str, Accumulator] = {}
        wanted: dict[str, Tensor] = {}
        for spec, metric in self.comparisons.items():
            filled[spec] = metric.accumulator()
            wanted[spec] = torch.zeros(len(data.labels), dtype=torch.bool)
            wanted[spec][stratified(data.labels, self.reference_counts[spec])] = True
        if not wanted:
            return filled
        used_by_any = torch.stack(list(wanted.values())).any(0).nonzero().flatten()
        for rows in used_by_any.split(BATCH):
            batch = self._seen(Batch(data.read(rows), data.labels[rows], None, told_of(data, rows)))
            for spec, accumulator in filled.items():
                accumulator.update(batch.rows(wanted[spec][rows]))
        return filled

    def _seen(self, batch: Batch) -> Observation:
        """Returns the network's features of 8-bit images; logits only where they are for the classes of the data."""
        pixels = pixels_of(batch.images)
        seen = replace(self.network.observe(pixels, batch.labels), images=pixels, told=batch.told)
        own, those = (getattr(entry, "classes", None) for entry in (self.network, self.split(self.reference)))
        return (
            seen if own is None or those is None or tuple(own) == tuple(those) else replace(seen, logits=None)
        )

    def measure(self, batches: Iterable[tuple[Any, ...]]) -> dict[str, float | None]:
        """Returns the metrics of a stream of 8-bit images, without those of pairs where a batch has none.

        Args:
            batches: each the fields of a `Batch`, or the first of them; none of its images is kept.
        """
        # The reference comes before the first batch, so that a missing data set shows at once.
        reference = self.accumulated_reference
        filled = {spec: metric.accumulator() for spec, metric in self.comparisons.items()}
        beside = {spec: _Mean() for spec in self.pairs}
        for batch in (Batch(*fields) for fields in batches):
            if filled:
                seen = self._seen(batch)
                for accumulator in filled.values():
                    accumulator.update(seen)
            for spec, numbers in self._compared(batch.images, batch.others):
                beside[spec].update(numbers)
        means = {spec: mean.value for spec, mean in beside.items() if mean.count}
        values = {
            spec: self.comparisons[spec].value(reference[spec], found) for spec, found in filled.items()
        }
        return {spec: {**values, **means}[spec] for spec in self.components if spec in {**values, **means}}

    def _compared(self, images: Tensor, others: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """The numbers [B] of each metric of pairs."""
        if others is None:
            return
        samples, originals = pixels_of(images), pixels_of(others)
        for spec, metric in self.pairs.items():
            network = self.network if metric.takes_features else None
            numbers = metric.compare(samples, originals, network)
            if not numbers.isfinite().all():
                raise TrilemmaError(
                    f"{spec} found numbers that are not finite; check the images and the metric"
                )
            yield spec, numbers

    def measured_split(self, model: Denoiser | Autoencoder) -> str:
        """Returns the split for metrics without samples: by default the one that is not the reference, or the reference
        where the model was trained on the other split alone."""
        if self.measured is not None:
            return self.measured
        other = OTHER_SPLIT[self.reference]
        return self.reference if self.splits.trained_on(Training.of(model.card)) == [other] else other

    def measure_model(
        self, model: Denoiser | Autoencoder, n: int, batch_size: int, seed: int
    ) -> dict[str, dict[str, Any]]:
        """Returns the metrics without samples on n images, at most all, of `measured_split`."""
        if not self.of_the_model:
            return {}
        data = self.split(self.measured_split(model))
        rows = stratified(data.labels, min(n, len(data.labels)))
        images, labels = pixels_of(data.read(rows)), data.labels[rows]
        return {
            spec: metric.measure(model, images, labels, batch_size, seed)
            for spec, metric in self.of_the_model.items()
        }

    @cached_property
    def baseline(self) -> dict[str, Any]:
        """The metrics of real images: at most 10,000 of the measured split, else of the one that is no reference."""
        split = self.measured or OTHER_SPLIT[self.reference]
        data = self.split(split)
        chosen = stratified(data.labels, min(BASELINE_IMAGES, len(data.labels)))
        values = self.measure(
            Batch(data.read(rows), data.labels[rows], None, told_of(data, rows))
            for rows in chosen.split(BATCH)
        )
        return {"split": split, "images": len(chosen), "metrics": values}

    def describe_splits(self, model: Denoiser | Autoencoder | Cascade) -> dict[str, Any]:
        """Returns the rule by which a data set without splits was split, and the parts a model saw in training.

        The rule is None for a data set with splits; the parts are None where they are not known.
        """
        card = model.card or {}
        # An untrained network has the card of the trained one, without its weights.
        untrained = model.card is not None and card.get("weights", {}).get("sha256") is None
        seen = [] if untrained else self.splits.trained_on(Training.of(card))
        return {"rule": self.splits.rule, "trained_on": seen}

    def describe(self) -> dict[str, Any]:
        """Returns how the numbers are measured, as a record that can be written as JSON."""
        return {
            "dataset": self.dataset,
            "features": self.network.identity if self.network_is_asked else None,
            "metric_specs": {name: lookup.describe("metric", m) for name, m in self.components.items()},
            "reference": {"split": self.reference, "images": self.reference_counts},
            **({"cond_given": dict(self.cond)} if self.cond else {}),
        }


def as_advised(metrics: Sequence[str] | None, advised: Sequence[str]) -> tuple[str, ...]:
    """Returns the metrics that were given, one given by its bare name with the options that a card advises for it."""
    known = {parse_spec(spec).name: spec for spec in advised}
    return tuple(known.get(spec, spec) for spec in metrics) if metrics else tuple(advised)


def told_of(data: LabelledImages, rows: Tensor) -> dict[str, Any]:
    """Returns the values of images at indices by name, but for their labels and for values that are images."""
    columns: Mapping[str, Column] = getattr(data, "columns", {})
    return {
        name: column.known(rows)
        for name, column in columns.items()
        if name != LABEL and not isinstance(column, ImageColumn)
    }


def feature_network(given: str | None, shape: tuple[int, ...]) -> FeatureNetwork:
    """Returns the feature network of a name; for None, the first of the default ones that takes images of a shape.

    Raises:
        UsageError: for another component, or where none takes them.
    """
    if given is not None:
        return _feature_network(given)
    for name in building.default_features():
        if (network := _feature_network(name)).takes(shape):
            return network
    raise UsageError(
        f"the model's card names no feature network, and none of the default ones takes images of shape {shape}; "
        "give one as --features NAME"
    )


def _feature_network(given: str) -> FeatureNetwork:
    """The feature network of a spec, or the trained one that a model's name or directory means."""
    if is_model(user_path(given)) or _only_a_model(given):
        return load_of(Features, given)  # type: ignore[type-abstract]
    network, spec = lookup.build("metric", given)
    if not isinstance(network, FeatureNetwork):
        raise UsageError(
            f"{spec} is a metric, not a feature network; give one of those as --features, for example "
            + " or ".join(building.default_features())
        )
    return network


def _only_a_model(given: str) -> bool:
    kinds = {found.spec.kind for found in catalog().search(given)}
    return "model" in kinds and "metric" not in kinds


def _shape_of(data: LabelledImages) -> tuple[int, ...]:
    stated = getattr(data, "shape", None)
    return tuple(stated or data.read(torch.arange(min(1, len(data.labels)))).shape[1:])


def stratified(labels: Tensor, count: int) -> Tensor:
    """Returns `count` indices in the class proportions of `labels` [N], spread evenly within every class.

    With o the stable order by class: o[⌊i N/count⌋], i = 0 .. count − 1. Every sixth image in file order
    would not do: MNIST interleaves two groups of writers, and such a subset is far from the whole.
    """
    check_memory(24 * count, f"the labels of {count} images", "ask for fewer")
    order = labels.argsort(stable=True)
    return order[torch.arange(count) * len(order) // max(count, 1)]


def pixels_of(images: Tensor) -> Tensor:
    """Returns 8-bit images as pixels in [-1, 1]: x/127.5 − 1."""
    return images.float() / 127.5 - 1


def to_eight_bits(samples: Tensor) -> Tensor:
    """Returns samples in [-1, 1] as a picture file holds them, uint8: the rounding that the reference images had, too.

    Raises:
        TrilemmaError: for samples that are not finite.
    """
    if not samples.isfinite().all():
        raise TrilemmaError("the samples hold NaN or infinite pixels; check the model's weights")
    return ((samples.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
