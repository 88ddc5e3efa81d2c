"""Models of every kind: built from a card, written, and loaded as the object that the card's kind names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trilemma import Autoencoder, Classifier, Features, load
from trilemma.errors import ModelError, UsageError
from trilemma.models.building import build
from trilemma.models.card import load_model, read_card, save_model
from trilemma.testing import WordEncoder

CARDS = {
    "autoencoder": {
        "model": {"name": "tiny-codes", "kind": "autoencoder", "licence": "Apache-2.0"},
        "autoencoder": {"spec": "test-codes", "options": {"channels": 2}},
        "data": {"shape": [1, 4, 4]},
    },
    "classifier": {
        "model": {"name": "tiny-classes", "kind": "classifier"},
        "classifier": {"spec": "test-classes"},
        "process": {"spec": "vp:schedule=cosine,T=1000"},
        "data": {"shape": [1, 4, 4], "classes": ["a", "b"]},
    },
    "features": {
        "model": {"name": "tiny-features", "kind": "features"},
        "features": {"spec": "test-features", "options": {"width": 3}},
        "data": {"shape": [1, 4, 4], "classes": ["a", "b"]},
    },
}
EXPECTED = {"autoencoder": Autoencoder, "classifier": Classifier, "features": Features}


class Codes(Autoencoder):
    def __init__(self, shape, channels=1):
        super().__init__(shape, channels)
        self.down = nn.Conv2d(shape[0], 2 * channels, 2, stride=2)
        self.up = nn.ConvTranspose2d(channels, shape[0], 2, stride=2)

    def code_shape(self, shape):
        return len(self.code_mean), shape[1] // 2, shape[2] // 2

    def encode(self, x):
        mean, log_variance = self.down(x).chunk(2, 1)
        return mean, log_variance

    def decode(self, code):
        return self.up(code)


class Classes(Classifier):
    def __init__(self, shape, classes, process=None):
        super().__init__(shape, classes, process)
        self.linear = nn.Linear(16, len(classes))

    def forward(self, z, t):
        return self.linear(z.flatten(1)) * (1 - t[:, None])


class Wide(Features):
    def __init__(self, shape, classes=(), width=2):
        super().__init__(shape, classes)
        self.embed = nn.Linear(16, width)
        self.classify = nn.Linear(width, len(classes))

    def forward(self, images):
        features = self.embed(images.flatten(1)).relu()
        return features, self.classify(features)


class Sizes:
    pass


@pytest.fixture(autouse=True)
def _registered(register):
    register("autoencoder", "test-codes", Codes)
    register("classifier", "test-classes", Classes)
    register("features", "test-features", Wide)


@pytest.mark.parametrize("kind", CARDS)
def test_a_model_of_a_kind_comes_back_as_it_was(kind, tmp_path):
    made = build(CARDS[kind], seed=3)
    save_model(tmp_path / "m", CARDS[kind], made.state_dict())
    loaded = load(tmp_path / "m")
    assert isinstance(loaded, EXPECTED[kind])
    assert loaded.card["model"]["kind"] == kind
    assert not loaded.training
    assert not any(entry.requires_grad for entry in loaded.parameters())
    for name, tensor in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_an_encoder_has_a_card_without_weights(tmp_path, register):
    register("encoder", "test-words", WordEncoder)
    card = {
        "model": {"name": "words", "kind": "encoder"},
        "encoder": {"spec": "test-words", "options": {"width": 5}},
    }
    save_model(tmp_path / "m", card, {})
    assert [file.name for file in (tmp_path / "m").iterdir()] == ["model.toml"]
    loaded = load(tmp_path / "m")
    assert isinstance(loaded, WordEncoder)
    assert loaded.width == 5
    register("encoder", "test-sizes", Sizes)
    with pytest.raises(UsageError, match="is no Encoder"):
        build({**card, "encoder": {"spec": "test-sizes"}}, seed=0)


@pytest.mark.parametrize("kind", CARDS)
def test_the_seed_decides_the_weights(kind):
    first, again, other = (build(CARDS[kind], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_classifier_knows_its_process_and_its_classes():
    made = build(CARDS["classifier"], seed=0)
    assert made.classes == ("a", "b")
    assert made.process.table == 1000
    del (card := {**CARDS["classifier"]})["process"]
    assert build(card, seed=0).process is None


def test_features_are_a_feature_network_with_an_identity(tmp_path):
    save_model(tmp_path / "m", CARDS["features"], build(CARDS["features"], seed=0).state_dict())
    loaded = load(tmp_path / "m")
    digest = read_card(tmp_path / "m")["weights"]["sha256"]
    assert loaded.identity == f"tiny-features sha256:{digest[:16]}"
    seen = loaded.observe(torch.zeros(205, 1, 4, 4))
    assert seen.features.shape == (205, 3)
    assert seen.logits.shape == (205, 2)


def test_normalised_codes_have_mean_0_and_deviation_1_over_the_training_set():
    made = build(CARDS["autoencoder"], seed=0)
    images = torch.rand(5000, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made.normalise_over(images.split(64))
    noise = torch.randn(5000, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    code = made.normalised_code(images, noise)
    assert torch.allclose(code.mean((0, 2, 3)), torch.zeros(2), atol=0.03)
    assert torch.allclose(code.std((0, 2, 3)), torch.ones(2), atol=0.03)
    mean, _ = made.encode(images)
    assert torch.allclose(made.image(made.normalised_code(images)), made.decode(mean), atol=1e-6)


def test_an_autoencoder_that_makes_the_same_code_of_all_images_is_not_normalised():
    made = build(CARDS["autoencoder"], seed=0)
    with torch.no_grad():
        made.down.weight.zero_()
        made.down.bias.fill_(-200.0)
    with pytest.raises(UsageError, match="channel 0 of the codes has the deviation 0"):
        made.normalise_over([torch.rand(8, 1, 4, 4)])
    with pytest.raises(UsageError, match="no images"):
        made.normalise_over([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "m", "kind": "autoencodr"}}, "did you mean 'autoencoder'"),
        ({"model": {"name": "m", "kind": 3}}, "3 is no kind of model"),
        ({"denoiser": {"spec": "unet", "parameterization": "v"}}, "unknown key 'denoiser'"),
        ({"autoencoder": {"spec": "test-codes", "options": {"shape": [1]}}}, "a table without shape"),
        (
            {"autoencoder": {"spec": "test-codes", "options": {"channels": 3}}},
            r"do not fit its \[autoencoder\]",
        ),
        ({"model": {"name": "m", "kind": "autoencoder", "licence": "a\nb"}}, "model.licence"),
    ],
)
def test_a_damaged_card_is_refused(change, message, tmp_path):
    tensors = build(CARDS["autoencoder"], seed=0).state_dict()
    save_model(tmp_path / "m", {**CARDS["autoencoder"], **change}, tensors)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_a_component_of_another_kind_is_refused(register):
    register("autoencoder", "test-wrong", Wide)
    with pytest.raises(UsageError, match="is no Autoencoder"):
        build({**CARDS["autoencoder"], "autoencoder": {"spec": "test-wrong"}}, seed=0)
