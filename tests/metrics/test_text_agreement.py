"""Text agreement, and the network that it asks."""

from __future__ import annotations

import pytest
import torch

import trilemma
from support import emoji_like
from trilemma import lookup
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import Evaluator
from trilemma.evaluate.evaluator import as_advised
from trilemma.interfaces.metric import Observation
from trilemma.models.card import save_model
from trilemma.testing import WordEncoder, run_checks
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train
from trilemma_plugins.metrics.matching_network import MatchingNetwork
from trilemma_plugins.metrics.text_agreement import TextAgreement, others

SIDE = 16


@pytest.fixture
def words(register, monkeypatch, tmp_path):
    register("encoder", "words", WordEncoder)
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    return emoji_like.write(tmp_path / "pictures.zip", SIDE)


@pytest.fixture
def network(words, tmp_path):
    """The folder of an untrained one."""
    card = {
        "model": {"name": "fits", "kind": "features"},
        "features": {"spec": "matching-network", "options": {"encoder": "words", "width": 8, "hidden": 16}},
        "data": {"shape": [3, SIDE, SIDE]},
    }
    made = trilemma.models.building.build(card, seed=0)
    save_model(tmp_path / "fits", card, made.state_dict())
    return tmp_path / "fits"


def test_the_network_passes_the_checks(words):
    found = run_checks("features", "matching-network:encoder=words")
    assert [(record.name, record.reason) for record in found if record.failed] == []


def test_it_learns_which_text_belongs_to_which_picture(words, pictures, tmp_path):
    """Of pictures that it has not seen, too: a colour and a shape that were never together."""
    recipe = make_recipe(
        {
            "steps": 60,
            "batch_size": 20,
            "ema": 0.8,
            "tensorboard": False,
            "log_every": 60,
            "dataset": {"spec": f"images:root='{pictures}',split=train"},
            "features": {
                "spec": "matching-network",
                "options": {"encoder": "words", "width": 16, "hidden": 32},
            },
            "objective": {"spec": "contrastive:shift=1,border=white"},
            "optimizer": {"lr": 3e-3, "warmup": 5, "weight_decay": 0.0},
        }
    )
    result = train(recipe, tmp_path / "run")
    assert result.last["agreement"] > 0.9
    spec = f"text-agreement:network='{result.model}',among=10"
    measured = {
        split: Evaluator(f"images:root='{pictures}'", None, (spec,), measured=split).baseline["metrics"][spec]
        for split in ("train", "test-combination")
    }
    assert measured["train"] > 0.9
    assert measured["test-combination"] >= 0.5


def test_it_counts_the_images_whose_text_fits_best(network):
    """Against the definition, with all texts known: those of the samples and those of the reference."""
    metric = TextAgreement(str(network), among=6)
    texts = [f"text {number}" for number in range(6)]
    images = torch.rand(40, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    asked = [texts[number % 5] for number in range(40)]
    samples, reference = metric.accumulator(), metric.accumulator()
    for rows in torch.arange(40).split(7):
        seen = Observation(torch.zeros(40, 1), None, None, images, {"text": asked}).rows(rows)
        samples.update(seen)
    reference.update(Observation(torch.zeros(3, 1), None, None, images[:3], {"text": texts[3:]}))
    matching = trilemma.load(network)
    fits = matching(images)[0] @ matching.told(texts).T
    expected = (fits.argmax(1) == torch.tensor([texts.index(text) for text in asked])).double().mean()
    assert metric.value(reference, samples) == pytest.approx(float(expected))
    assert 0 < float(expected) < 1
    with pytest.raises(TrilemmaError, match="6 texts, fewer than among=7"):
        TextAgreement(str(network), among=7).value(reference, samples)


def test_the_other_texts_depend_on_no_order():
    known = [f"text {number}" for number in range(50)]
    chosen = others("text 3", known, 9)
    assert chosen == others("text 3", reversed(known), 9)
    assert len(set(chosen)) == 9
    assert "text 3" not in chosen
    assert set(chosen) != set(others("text 4", known, 9))


def test_images_without_texts_count_for_nothing(network):
    metric = TextAgreement(str(network), among=2)
    samples = metric.accumulator()
    samples.update(Observation(torch.zeros(2, 1)))
    assert metric.value(metric.accumulator(), samples) is None
    images = torch.zeros(2, 3, SIDE, SIDE)
    samples.update(Observation(torch.zeros(2, 1), None, None, images, {"text": ["a", None]}))
    assert samples.texts == ["a"]
    assert samples.vectors.shape == (1, 8)


def test_it_needs_a_network_that_matches(network, one_line):
    told = Observation(torch.zeros(1, 1), None, None, torch.zeros(1, 3, SIDE, SIDE), {"text": ["a"]})
    with pytest.raises(UsageError, match="network=NAME") as caught:
        TextAgreement().accumulator().update(told)
    one_line(caught.value)
    with pytest.raises(UsageError, match="does not match images with texts") as caught:
        TextAgreement("mnist-features").accumulator()
    one_line(caught.value)
    with pytest.raises(UsageError, match="among=1"):
        TextAgreement(among=1)


def test_a_bare_name_has_the_options_of_the_card():
    advised = ["frechet", "text-agreement:network=fits"]
    assert as_advised(["text-agreement", "recall"], advised) == ("text-agreement:network=fits", "recall")
    assert as_advised(["text-agreement:network=mine"], advised) == ("text-agreement:network=mine",)
    assert as_advised(None, advised) == tuple(advised)


def test_the_network_takes_pictures_of_any_size_in_patches(words):
    made = MatchingNetwork((3, 64, 64), encoder="words", patch=2)
    made.eval()
    small, large = torch.zeros(1, 1, 28, 28), torch.zeros(1, 3, 64, 64)
    assert made.observe(small).features.shape == made.observe(large).features.shape == (1, 128)
    assert made.observe(large).features.norm() == pytest.approx(1)
    assert lookup.build("features", "image-network:patch=2")[0].stem[0].weight.shape[1] == 12
