"""The classifier that ships."""

from __future__ import annotations

import hashlib
import tomllib

import pytest
import torch

import trilemma
from trilemma_plugins.guidances.bundled import BUNDLED, load_classifier

FOLDER = BUNDLED["mnist"]


def test_the_weights_are_those_of_the_card_and_small():
    card = tomllib.loads((FOLDER / "model.toml").read_text(encoding="utf-8"))
    blob = (FOLDER / card["weights"]["file"]).read_bytes()
    assert hashlib.sha256(blob).hexdigest() == card["weights"]["sha256"]
    assert len(blob) < 500_000
    assert (FOLDER / "train.jsonl").is_file()


def test_it_was_trained_on_the_process_of_the_bundled_model():
    card = tomllib.loads((FOLDER / "model.toml").read_text(encoding="utf-8"))
    model = trilemma.load("mnist").process
    times = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    own = trilemma.process(card["process"]["spec"])
    for ours, theirs in zip(own.moments(times), model.moments(times), strict=True):
        assert torch.equal(ours, theirs)


def test_it_knows_digits_by_noise_level(data_root):
    images = trilemma.lookup.dataset("mnist:split=test", root=str(data_root / "mnist"))
    process = trilemma.load("mnist").process
    clean = images.images[:500].float() / 127.5 - 1
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    network = load_classifier("mnist")
    for t, least in ((0.1, 0.95), (0.5, 0.9), (0.7, 0.75)):
        time = torch.full((500,), t, dtype=torch.float64)
        answers = network(process.perturb(clean, time, noise), time.float()).argmax(1)
        assert float((answers == images.labels[:500]).float().mean()) > least


def test_a_spec_names_it():
    settings = {"sampler": "ddim", "steps": 3}
    guided = trilemma.sample("mnist", 2, guidance="classifier:label=[7,3],scale=5", **settings)
    plain = trilemma.sample("mnist", 2, **settings)
    assert guided.provenance["nfe"] == plain.provenance["nfe"] == 3
    assert not torch.equal(guided.samples, plain.samples)
    alone = trilemma.sample("mnist", indices=[1], guidance="classifier:label=[7,3],scale=5", **settings)
    assert torch.allclose(alone.samples[0], guided.samples[1], atol=1e-3)


@pytest.mark.parametrize(("scale", "least"), [(0, 0.0), (5, 0.8)])
def test_it_leads_the_bundled_model_to_its_label(scale, least):
    """By the classifier of the metrics, which is another one and sees clean digits alone."""
    labels = list(range(10))
    drawn = trilemma.sample(
        "mnist", 30, sampler="ddim", steps=15, guidance=f"classifier:scale={scale},label={labels}", seed=5
    )
    judge = trilemma.registry.building.build("metric", "mnist-features")[0].network
    agreement = float((judge(drawn.samples)[1].argmax(1) == torch.arange(30) % 10).float().mean())
    assert agreement >= least
    assert scale or agreement < 0.5
