"""Measuring a model: what it is asked for, and what the record says."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from trilemma import Request
from trilemma.errors import UsageError
from trilemma.evaluate import Evaluator, Observation, evaluate, evaluator, untrained
from trilemma.evaluate.evaluator import to_eight_bits
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.interfaces.process import Process
from trilemma.models.card import build_denoiser
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.metrics.agreement import ClassAgreement
from trilemma_plugins.metrics.frechet import FrechetDistance
from trilemma_plugins.metrics.manifold import Precision, Recall

MEANS = (-0.5, 0.1, 0.7)


class Brightness:
    """Features: mean and one pixel; classifies by the nearest of three mean values."""

    identity = "brightness"

    def takes(self, shape: tuple[int, ...]) -> bool:
        return tuple(shape) == (1, 4, 4)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        flat = images.flatten(1)
        mean = flat.mean(1, keepdim=True)
        return Observation(torch.cat([mean, flat[:, :1]], 1), -(mean - torch.tensor(MEANS)).abs(), labels)


def split(count: int, seed: int) -> InMemoryDataset:
    """Exactly the data for which `GaussianDenoiser` is the optimum, half of it in the first class."""
    labels = torch.arange(count) % 4 % 3
    noise = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) * 0.1
    images = torch.tensor(MEANS)[labels].view(-1, 1, 1, 1) + noise
    return InMemoryDataset(to_eight_bits(images), labels, ("a", "b", "c"))


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> Evaluator:
    found = {
        "frechet": FrechetDistance(),
        "precision": Precision(),
        "recall": Recall(),
        "class-agreement": ClassAgreement(),
    }
    splits = {"train": split(400, 0), "test": split(200, 1)}

    def build(kind: str, spec: str, **options: str) -> tuple[object, str]:
        if kind == "dataset":
            return splits[options["split"]], spec
        return (Brightness() if spec == "brightness" else found[spec]), spec

    monkeypatch.setattr(
        evaluator, "lookup", SimpleNamespace(build=build, describe=lambda kind, made: str(made))
    )
    return Evaluator(dataset="levels", features="brightness")


@pytest.fixture
def process() -> Process:
    return DiscreteVP(schedule="cosine", T=1000)


@pytest.fixture
def model(process: Process) -> GaussianDenoiser:
    return GaussianDenoiser(process, [*MEANS, 0.1], 0.01, "v", (1, 4, 4)).eval()


def test_the_optimal_denoiser_of_the_data_measures_like_the_data(
    model: GaussianDenoiser, instrument: Evaluator
) -> None:
    record = evaluate(Request(model, sampler=DDIM(), steps=40, n=200, batch_size=64, seed=3), instrument)
    values, real = record["metrics"], instrument.baseline["metrics"]
    assert values["frechet"] < 0.01
    assert values["class-agreement"] == real["class-agreement"] == 1.0
    assert values["precision"] > 0.8
    assert values["recall"] > 0.8
    assert (record["n"], record["nfe"], record["steps"], record["seed"]) == (200, 40, 40, 3)
    assert record["reference"] == {
        "split": "train",
        "images": dict.fromkeys(values, 400) | {"class-agreement": 0},
    }
    assert json.loads(json.dumps(record))["metrics"] == values


def test_samples_are_asked_for_in_the_training_splits_proportions(
    model: GaussianDenoiser, instrument: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    forward = GaussianDenoiser.forward

    def watched(self: GaussianDenoiser, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        asked.extend(cond["class"].tolist())
        return forward(self, z, t, **cond)

    monkeypatch.setattr(GaussianDenoiser, "forward", watched)
    evaluate(Request(model, sampler=DDIM(), steps=1, n=100, batch_size=30), instrument)
    assert Counter(asked) == {0: 50, 1: 25, 2: 25}


def test_the_numbers_do_not_depend_on_the_batch_size(model: GaussianDenoiser, instrument: Evaluator) -> None:
    def values(batch_size: int) -> dict[str, float]:
        return evaluate(Request(model, sampler=DDIM(), steps=3, n=60, batch_size=batch_size), instrument)[
            "metrics"
        ]

    assert values(7) == pytest.approx(values(60), rel=1e-9)


def test_a_guided_evaluation_pays_for_both_branches(model: GaussianDenoiser, instrument: Evaluator) -> None:
    record = evaluate(Request(model, sampler=DDIM(), steps=5, guidance=CFG(2.0), n=20), instrument)
    assert record["nfe"] == 10


def test_a_model_without_classes_is_asked_for_none(process: Process, instrument: Evaluator) -> None:
    model = GaussianDenoiser(process, 0.1, 0.04, "v", (1, 4, 4)).eval()
    record = evaluate(Request(model, sampler=DDIM(), steps=5, n=40), instrument)
    assert record["metrics"]["class-agreement"] is None
    assert record["cond"] is None
    assert record["metrics"]["frechet"] > 0.05


@pytest.mark.parametrize("n", [0, -3])
def test_a_number_of_samples_that_is_none_is_refused(
    model: GaussianDenoiser, instrument: Evaluator, n: int
) -> None:
    with pytest.raises(UsageError, match=f"n={n} is not a number of samples"):
        evaluate(Request(model, sampler=DDIM(), steps=5, n=n), instrument)


def test_an_untrained_network_is_decided_by_its_seed_alone() -> None:
    options = {"channels": [8], "blocks": 1, "groups": 4}
    card = {
        "model": {"name": "x"},
        "process": {"spec": "vp"},
        "denoiser": {"spec": "unet", "parameterization": "v", "options": options},
        "weights": {"sha256": "abc"},
        "data": {"shape": [1, 8, 8]},
    }
    trained = build_denoiser(card, seed=7)
    trained.card = card
    before = torch.get_rng_state()
    first = untrained(trained, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    again, other = untrained(trained, 0), untrained(trained, 1)
    assert torch.equal(first.inlet.weight, again.inlet.weight)
    assert not torch.equal(first.inlet.weight, other.inlet.weight)
    assert not torch.equal(first.inlet.weight, trained.inlet.weight)
    assert not first.training
    assert first.card["weights"]["sha256"] is None
    trained.card = None
    with pytest.raises(UsageError, match="no card"):
        untrained(trained, 0)
