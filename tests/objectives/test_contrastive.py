"""The loss of pairs of images and texts against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ScalarCondition
from trilemma.interfaces.features import Features
from trilemma.interfaces.update import Step, Update
from trilemma_plugins.objectives.contrastive import Contrastive
from trilemma_plugins.objectives.moving import moved

TEXTS = ["a cat", "a dog", "a cat", "a hen"]


class Pairing(Features):
    """Logits that are the products of pixels and of what it is told."""

    def __init__(self) -> None:
        super().__init__((1, 1, 3), (), (ScalarCondition("text", 0, 1),))

    def forward(self, images: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        features = images.flatten(1)
        return features, None if text is None else features @ text.T


def step_of(model: Features) -> Step:
    x0, told = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    x0 = x0.view(4, 1, 1, 3)
    return Step(model, model, {}, x0, {"text": told}, {"text": TEXTS}, torch.Generator().manual_seed(1))


def test_it_is_the_cross_entropy_of_the_pairs_both_ways():
    step = step_of(Pairing())
    loss, scalars = Contrastive().update_loss(Update("model"), step)
    logits = (step.x0.flatten(1) @ step.cond["text"].T).double()
    # Images 0 and 2 have one text, each of which is right by half.
    target = torch.eye(4).double()
    target[0, 2] = target[2, 0] = target[0, 0] = target[2, 2] = 0.5
    expected = -(target * (logits.log_softmax(1) + logits.log_softmax(0))).sum() / 8
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(scalars["agreement"]) == pytest.approx(
        float((target.gather(1, logits.argmax(1, keepdim=True)) > 0).double().mean())
    )


def test_images_are_shifted_in_training_alone():
    objective, model = Contrastive(shift=1, border="white"), Pairing()
    losses = [
        float(objective.update_loss(Update("model"), step_of(m))[0]) for m in (model.train(), model.eval())
    ]
    assert losses[1] == float(Contrastive().update_loss(Update("model"), step_of(model.eval()))[0])
    assert float(objective.update_loss(Update("model"), step_of(model.train()))[0]) != losses[1]


@pytest.mark.parametrize(("border", "level"), [("white", 1.0), ("background", -1.0), ("reflect", 0.0)])
def test_a_shift_brings_in_the_border(border, level):
    shifted = moved(torch.zeros(20, 1, 4, 4), torch.Generator().manual_seed(0), 1, border, False)
    assert set(shifted.flatten().tolist()) == {0.0, level}


@pytest.mark.parametrize("options", [{"shift": -1}, {"border": "blue"}])
def test_bad_options_are_refused(options, one_line):
    with pytest.raises(UsageError) as caught:
        Contrastive(**options)
    assert "contrastive" in str(caught.value)


def test_a_network_that_is_told_no_texts_is_refused(one_line):
    plain = lookup.build("features", "image-network")[0]
    with pytest.raises(UsageError, match="is not told 'text'") as caught:
        Contrastive().update_loss(Update("model"), step_of(plain))
    one_line(caught.value)
