"""The loss of classifiers against its definition, and the views of an image that a training sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.features import Features
from trilemma.interfaces.update import Step, Update
from trilemma_plugins.objectives.cross_entropy import CrossEntropy

LABELS = torch.arange(6) % 3


class Telling(Classifier):
    """Logits that are the first pixels; keeps the states and times that it was asked at."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        self.seen = z, t
        return z.flatten(1)[:, :3]


class Seeing(Features):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return images.flatten(1), images.flatten(1)[:, :3]


def step_of(model: nn.Module, x0: Tensor, **values: Tensor) -> Step:
    return Step(model, model, {}, x0, {}, values or {"class": LABELS}, torch.Generator().manual_seed(1))


def images(batch: int = 6, side: int = 4) -> Tensor:
    return torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", [Telling((1, 4, 4), "abc"), Seeing((1, 4, 4), "abc")])
def test_it_is_the_cross_entropy_of_the_labels_and_tells_the_accuracy(model):
    x0 = images()
    loss, scalars = CrossEntropy().update_loss(Update("model"), step_of(model, x0))
    p = x0.flatten(1)[:, :3].double().softmax(1)
    assert float(loss) == pytest.approx(-float(p[torch.arange(6), LABELS].log().mean()), rel=1e-6)
    assert float(scalars["accuracy"]) == pytest.approx(float((p.argmax(1) == LABELS).double().mean()))


@pytest.mark.parametrize("process", ["vp:schedule=cosine,T=10", "vp-continuous"])
def test_a_classifier_with_a_process_sees_noised_data_at_times_of_its_table(process):
    model = Telling((1, 4, 4), "abc", lookup.process(process)).eval()
    x0 = images(600)
    CrossEntropy().update_loss(Update("model"), step_of(model, x0, **{"class": torch.arange(600) % 3}))
    z, t = model.seen
    assert bool((t > 0).all() and (t <= 1).all())
    if model.process.table:
        assert torch.bincount((t * 10).round().long(), minlength=11).tolist() == [0] + [60] * 10
    alpha, sigma = model.process.scales(t.double(), x0)
    noise = ((z - alpha * x0) / sigma).double()
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("border", "brought"), [("background", -1.0), ("reflect", 0.5)])
def test_an_image_is_shifted_by_at_most_so_many_pixels(border, brought):
    places = torch.full((400, 1, 9, 9), 0.5)
    places[:, :, 4, 5] = 1
    objective = CrossEntropy(shift=2, border=border)
    moved = objective.moved(places, torch.Generator().manual_seed(0))
    assert moved.shape == places.shape
    found = {tuple(place) for place in (moved == 1).nonzero()[:, 2:].tolist()}
    assert found == {(row, column) for row in range(2, 7) for column in range(3, 8)}
    assert bool(((moved == 1).flatten(1).sum(1) == 1).all())
    assert float(moved.min()) == brought


def test_half_are_mirrored():
    ramp = torch.arange(5.0).expand(1000, 1, 3, 5)
    moved = CrossEntropy(flip=True).moved(ramp, torch.Generator().manual_seed(0))
    kept = (moved == ramp).flatten(1).all(1)
    assert bool((kept | (moved == ramp.flip(3)).flatten(1).all(1)).all())
    assert abs(int(kept.sum()) - 500) < 4 * 250**0.5


def test_views_differ_in_training_alone():
    model, objective = Seeing((1, 4, 4), "abc"), CrossEntropy(shift=1)
    step = step_of(model, images())

    def loss(seed: int) -> float:
        again = replace(step, generator=torch.Generator().manual_seed(seed))
        return float(objective.update_loss(Update("model"), again)[0])

    model.train()
    assert loss(1) != loss(2)
    model.eval()
    assert loss(1) == loss(2)


def test_what_has_no_logits_or_no_classes_is_refused():
    with pytest.raises(UsageError, match="has no logits"):
        CrossEntropy().update_loss(Update("model"), step_of(Seeing((1, 4, 4)), images()))
    with pytest.raises(UsageError, match="have no classes"):
        CrossEntropy().update_loss(
            Update("model"), replace(step_of(Seeing((1, 4, 4), "abc"), images()), values={})
        )


@pytest.mark.parametrize("options", [{"smoothing": 1.0}, {"shift": -1}, {"border": "wrap"}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        CrossEntropy(**options)
