"""An evaluation tells a model the values of the training images, by the names of its conditions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trilemma import lookup
from trilemma.engine.request import Request
from trilemma.evaluate import Evaluator, Metric, Observation, evaluate, evaluator
from trilemma.interfaces.column import ScalarColumn
from trilemma.interfaces.condition import ClassCondition, ScalarCondition
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.interfaces.denoiser import Denoiser

LEVELS = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, torch.nan])
DATA = InMemoryDataset(
    torch.zeros(6, 1, 1, 1, dtype=torch.uint8),
    torch.tensor([1, 0, 1, 0, 1, 0]),
    ("a", "b"),
    {"level": ScalarColumn(LEVELS, 0, 1), "unused": ScalarColumn(LEVELS, 0, 1)},
)


class DrawsItsLevel(Denoiser):
    """Draws images whose pixel is the level that it is told; −1 where it is told none."""

    def __init__(self, *more: ClassCondition) -> None:
        conditions = (*more, ScalarCondition("level", 0, 1, null=True))
        super().__init__(lookup.process("vp:T=50"), "x0", (1, 1, 1), conditions)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, z, t, **cond):
        level = torch.where(cond["level_given"], cond["level"], -1.0)
        return level.view(-1, 1, 1, 1) + self.weight + 0 * z


class Pixels:
    identity = "pixels"

    def takes(self, shape):
        return True

    def observe(self, images, labels=None):
        return Observation(images.flatten(1), None, labels)


class Listing(Metric[list]):
    """All pixels with their labels, sorted."""

    reference_images = 0

    def accumulator(self):
        return Listed()

    def value(self, reference, samples):
        self.samples = samples.found
        return 0.0


class Listed:
    def __init__(self) -> None:
        self.found: list[tuple[float, int]] = []

    def update(self, batch):
        self.found += zip(batch.features.flatten().tolist(), batch.labels.tolist(), strict=True)


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize(
    ("more", "names"), [((ClassCondition("class", 2),), "labels and level"), ((), "level")]
)
def test_samples_are_asked_for_with_the_values_of_training_images(monkeypatch, n, more, names):
    """Each has the label of its image, whether the model is told it or not."""
    listing = Listing()
    built = {"dataset": DATA, "pixels": Pixels(), "listing": listing}

    def build(kind, spec, **options):
        return built["dataset" if kind == "dataset" else spec], spec

    look_up = SimpleNamespace(build=build, describe=lambda kind, made: "described")
    monkeypatch.setattr(evaluator, "lookup", look_up)
    model = DrawsItsLevel(*more).eval().requires_grad_(False)
    measured = Evaluator("numbers", "pixels", ("listing",))
    record = evaluate(Request(model=model, n=n, sampler="ddim", steps=2, batch_size=5), measured)
    told = [-1.0 if level != level else level for level in LEVELS.tolist()]
    expected = sorted(zip(told, DATA.labels.tolist(), strict=True)) * (n // 6)
    found = [(round(pixel * 4) / 4, label) for pixel, label in listing.samples]
    assert sorted(found) == sorted(expected)
    assert record["cond"] == f"the training {names}, in their proportions"


def test_samples_and_real_images_are_asked_for_by_the_split_that_is_measured(monkeypatch):
    """They reach the metric beside the images."""
    hard = InMemoryDataset(
        (255 * LEVELS[1:3]).round().to(torch.uint8).view(2, 1, 1, 1),
        torch.tensor([1, 0]),
        ("a", "b"),
        {"level": ScalarColumn(LEVELS[1:3], 0, 1)},
    )
    seen = []

    class Asking(Listing):
        def accumulator(self):
            return SimpleNamespace(update=lambda batch: seen.extend([batch] * bool(len(batch.features))))

        def value(self, reference, samples):
            return 0.0

    def build(kind, spec, split=None, **options):
        found = hard if split == "hard" else DATA
        return found if kind == "dataset" else {"pixels": Pixels(), "asking": Asking()}[spec], spec

    look_up = SimpleNamespace(build=build, describe=lambda kind, made: "described")
    monkeypatch.setattr(evaluator, "lookup", look_up)
    model = DrawsItsLevel().eval().requires_grad_(False)
    measured = Evaluator("numbers", "pixels", ("asking",), measured="hard")
    record = evaluate(Request(model=model, n=4, sampler="ddim", steps=2), measured)
    assert record["cond"] == "the hard level, in their proportions"
    (drawn,) = seen
    # In the order of the classes.
    assert drawn.told["level"].tolist() == [0.5, 0.5, 0.25, 0.25]
    assert drawn.labels.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(drawn.images.flatten(), drawn.told["level"], rtol=0, atol=0.01)
    seen.clear()
    assert measured.baseline["split"] == "hard"
    (real,) = seen
    torch.testing.assert_close(real.images.flatten(), 2 * real.told["level"] - 1, rtol=0, atol=0.01)
