"""The evaluator: which images it looks at, as what, and that it keeps none of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import Evaluator, Metric, Observation, evaluator
from trilemma.evaluate.evaluator import pixels_of, stratified, to_eight_bits
from trilemma.interfaces.dataset import InMemoryDataset

SPLITS = {
    "train": InMemoryDataset(
        torch.arange(120, dtype=torch.uint8).view(120, 1, 1, 1), torch.arange(120) % 3, ("a", "b", "c")
    ),
    "test": InMemoryDataset(
        torch.arange(200, 230, dtype=torch.uint8).view(30, 1, 1, 1),
        torch.zeros(30, dtype=torch.int64),
        ("a", "b", "c"),
    ),
}


class Pixels:
    """A feature network whose feature is the pixel."""

    identity = "pixels"

    def takes(self, shape: tuple[int, ...]) -> bool:
        return tuple(shape) == (1, 1, 1)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        return Observation(images.flatten(1), None, labels)


@dataclass
class Seen:
    """An accumulator that writes down what it sees."""

    pixels: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def update(self, batch: Observation) -> None:
        self.pixels += ((batch.features.flatten() + 1) * 127.5).round().int().tolist()
        self.labels += [] if batch.labels is None else batch.labels.tolist()
        self.batches.append(len(batch.features))


class MeanDifference(Metric[Seen]):
    """The difference of the mean pixels; remembers the accumulators it was given."""

    def __init__(self, reference_images: int | None = None) -> None:
        self.reference_images = reference_images

    def accumulator(self) -> Seen:
        return Seen()

    def value(self, reference: Seen, samples: Seen) -> float:
        self.reference, self.samples = reference, samples
        return sum(samples.pixels) / len(samples.pixels) - sum(reference.pixels) / max(
            1, len(reference.pixels)
        )


@pytest.fixture
def components(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the look-up finds: a network, metrics that look at everything and at 12 images, and the splits."""
    found: dict[str, object] = {"pixels": Pixels(), "all": MeanDifference(), "few": MeanDifference(12)}

    def build(kind: str, spec: str, **options: str) -> tuple[object, str]:
        return (SPLITS[options["split"]] if kind == "dataset" else found[spec]), spec

    monkeypatch.setattr(
        evaluator,
        "lookup",
        SimpleNamespace(
            build=build, describe=lambda kind, made: "described", default_features=lambda: ["pixels"]
        ),
    )
    monkeypatch.setattr(evaluator, "BATCH", 50)
    return found


def made(metrics: tuple[str, ...] = ("all", "few"), reference: str = "train") -> Evaluator:
    return Evaluator(dataset="numbers", features="pixels", metrics=metrics, reference=reference)


def test_each_metric_sees_its_share_of_the_reference_split_and_all_samples(
    components: dict[str, object],
) -> None:
    values = made().measure([(torch.full((4, 1, 1, 1), 7, dtype=torch.uint8), None)] * 2)
    everything, few = components["all"], components["few"]
    assert everything.reference.pixels == list(range(120))
    assert len(few.reference.pixels) == len(set(few.reference.pixels)) == 12
    assert Counter(few.reference.labels) == {0: 4, 1: 4, 2: 4}
    assert everything.samples.pixels == few.samples.pixels == [7] * 8
    assert values["all"] == pytest.approx(7 - 59.5)
    assert made().reference_counts == {"all": 120, "few": 12}


def test_the_reference_split_is_read_once_for_many_measurements(components: dict[str, object]) -> None:
    one = made()
    samples = [(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), None)]
    one.measure(samples)
    first = components["all"].reference
    one.measure(samples)
    assert components["all"].reference is first
    assert first.pixels == list(range(120))


@pytest.mark.parametrize(("reference", "other", "count"), [("train", "test", 30), ("test", "train", 120)])
def test_the_baseline_is_the_other_split(
    components: dict[str, object], reference: str, other: str, count: int
) -> None:
    baseline = made(reference=reference).baseline
    assert (baseline["split"], baseline["images"]) == (other, count)
    assert sorted(components["all"].samples.pixels) == SPLITS[other].images.flatten().tolist()
    assert sorted(components["all"].reference.pixels) == SPLITS[reference].images.flatten().tolist()


def test_samples_are_looked_at_as_they_come(components: dict[str, object]) -> None:
    looked_at = []

    def stream():
        for i in range(5):
            assert len(looked_at) == i
            yield torch.full((3, 1, 1, 1), i, dtype=torch.uint8), torch.tensor([i] * 3)

    original = Pixels.observe
    network = components["pixels"] = Pixels()
    one = made(metrics=("all",))
    assert one.accumulated_reference
    network.observe = lambda images, labels=None: looked_at.append(1) or original(network, images, labels)
    one.measure(stream())
    assert components["all"].samples.batches == [3] * 5
    assert components["all"].samples.labels == [i for i in range(5) for _ in range(3)]


def test_a_missing_data_set_shows_before_the_first_sample_is_drawn(
    components: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(kind: str, spec: str, **options: str) -> tuple[object, str]:
        if kind == "dataset":
            raise TrilemmaError("no data")
        return components[spec], spec

    def stream():
        raise AssertionError("a sample was drawn")
        yield

    evaluator.lookup.build = missing
    with pytest.raises(TrilemmaError, match="no data"):
        made().measure(stream())


def test_a_metric_is_no_feature_network_and_the_other_way_round(components: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="all is a metric, not a feature network"):
        _ = Evaluator("numbers", features="all", metrics=("few",)).network
    with pytest.raises(UsageError, match="pixels is a feature network, not a metric"):
        _ = made(metrics=("pixels",)).components
    with pytest.raises(UsageError, match="give train or test"):
        made(reference="validation")
    with pytest.raises(UsageError, match="no metric"):
        made(metrics=())


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 80))
def test_a_stratified_choice_has_the_class_proportions_to_less_than_one_image(
    labels: list[int], count: int
) -> None:
    chosen = stratified(torch.tensor(labels), count)
    assert len(chosen) == count
    if count <= len(labels):
        assert len(set(chosen.tolist())) == count
    counts = Counter(torch.tensor(labels)[chosen].tolist())
    for label, total in Counter(labels).items():
        assert abs(counts[label] - count * total / len(labels)) < 1


def test_eight_bits_there_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_eight_bits(pixels_of(every)), every)
    assert to_eight_bits(torch.tensor([-7.0, -1.0, 1.0, 1.5])).tolist() == [0, 0, 255, 255]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(TrilemmaError, match="NaN or infinite"):
            to_eight_bits(torch.tensor([0.0, bad]))
