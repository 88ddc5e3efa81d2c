"""Class agreement counts."""

from __future__ import annotations

import torch

from trilemma.evaluate import Observation
from trilemma_plugins.metrics.agreement import ClassAgreement


def test_it_is_the_fraction_of_labelled_images_on_which_the_classifier_agrees() -> None:
    metric = ClassAgreement()
    counted, features = metric.accumulator(), torch.zeros(4, 2)
    logits = torch.eye(4)
    counted.update(Observation(features, logits, torch.tensor([0, 1, 2, 0])))
    counted.update(Observation(features, logits, torch.tensor([1, 1, 1, 1])))
    assert metric.value(metric.accumulator(), counted) == 4 / 8


def test_it_does_not_apply_without_labels_or_without_a_classifier() -> None:
    metric = ClassAgreement()
    counted, features = metric.accumulator(), torch.zeros(4, 2)
    counted.update(Observation(features, torch.eye(4), None))
    counted.update(Observation(features, None, torch.arange(4)))
    assert metric.value(metric.accumulator(), counted) is None
