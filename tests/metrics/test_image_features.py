"""The feature network of images of any size: its own rules, and the same checks as for the other."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import trilemma
import trilemma_plugins.metrics
from trilemma.errors import TrilemmaError
from trilemma.evaluate import Evaluator, FeatureNetwork
from trilemma.interfaces.features import CHUNK
from trilemma.models.building import build
from trilemma.models.card import save_model
from trilemma.registry import MetricSpec, building
from trilemma_plugins.metrics.features import ImageFeatures, MnistFeatures
from trilemma_plugins.metrics.image_network import CLASSES, FEATURES, NAMES, resized

SHIPPED = Path(trilemma_plugins.metrics.__file__).parent / "image_weights"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network drawn at random, as one that was trained is written."""
    out = tmp_path_factory.mktemp("features") / "model"
    card = {
        "model": {"name": "image-features", "kind": "features"},
        "features": {"spec": "image-network", "options": {"normalised": True}},
        "data": {"shape": [3, 32, 32], "classes": list(NAMES)},
        "provenance": {"test_accuracy": 0.1},
    }
    save_model(out, card, build(card, seed=0).state_dict())
    return out


@pytest.fixture
def network(folder: Path) -> ImageFeatures:
    return ImageFeatures(str(folder))


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (3, 48, 31), (1, 8, 8), (3, 1, 1), (3, 200, 100)]
)
def test_it_takes_images_of_any_size(network: ImageFeatures, shape: tuple[int, ...]) -> None:
    assert isinstance(network, FeatureNetwork)
    assert network.takes(shape)
    seen = network.observe(torch.zeros(3, *shape), torch.tensor([1, 2, 3]))
    assert seen.features.shape == (3, FEATURES)
    assert seen.logits is not None
    assert seen.logits.shape == (3, CLASSES)
    assert seen.features.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 32, 32), (4, 8, 8), (3, 32), (3, 0, 4)])
def test_it_takes_nothing_else(network: ImageFeatures, shape: tuple[int, ...]) -> None:
    assert not network.takes(shape)
    with pytest.raises(TrilemmaError, match="image-features takes no images of shape"):
        network.observe(torch.zeros(2, *shape))


def test_grey_images_are_seen_as_three_equal_channels(network: ImageFeatures) -> None:
    grey = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    colour = grey.expand(-1, 3, -1, -1)
    assert torch.equal(network.observe(grey).features, network.observe(colour).features)


def test_features_of_an_image_do_not_depend_on_its_batch(network: ImageFeatures) -> None:
    images = torch.rand(CHUNK + 7, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = network.observe(images).features
    alone = torch.cat([network.observe(image[None]).features for image in images[-9:]])
    torch.testing.assert_close(whole[-9:], alone, rtol=1e-4, atol=1e-5)


def test_downwards_the_mean_of_what_a_pixel_covers_is_kept() -> None:
    """A checkerboard finer than the result is grey; without antialiasing it would be black or white."""
    board = (torch.arange(128)[:, None] + torch.arange(128)).remainder(2).float()[None, None] * 2 - 1
    assert resized(board)[..., 2:-2, 2:-2].abs().max() < 0.05


@pytest.mark.parametrize("position", [0, 7, 5000, -1])
def test_a_flipped_bit_anywhere_in_the_weights_is_refused(
    folder: Path, tmp_path: Path, position: int
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    blob = bytearray((tmp_path / "weights.safetensors").read_bytes())
    blob[position] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(blob)
    with pytest.raises(TrilemmaError, match="sha256"):
        ImageFeatures(str(tmp_path))


def test_the_weights_of_another_network_are_refused(folder: Path) -> None:
    with pytest.raises(TrilemmaError, match="does not hold the weights of DigitNetwork"):
        MnistFeatures(str(folder))


def test_it_is_a_default_and_the_networks_of_one_data_set_are_not() -> None:
    assert building.default_features() == ["image-features"]


def test_other_peoples_default_networks_come_after_the_built_in_ones(monkeypatch) -> None:
    """So that an installation changes no figure."""

    def found(name: str, built_in: bool, **options: bool) -> SimpleNamespace:
        spec = MetricSpec(name=name, target="package.module:Network", summary="features", **options)
        return SimpleNamespace(spec=spec, address=name, built_in=built_in)

    brought = [
        found("a-theirs", False, default_features=True),
        found("b-ours", True, default_features=True),
        found("c-ours", True),
    ]
    monkeypatch.setattr(building, "catalog", lambda: SimpleNamespace(components=lambda kind: brought))
    assert building.default_features() == ["b-ours", "a-theirs"]
    with pytest.raises(TypeError, match="default_features='yes' is neither True nor False"):
        found("d", True, default_features="yes")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Spec of 30 photos of 20×12, without splits and without classes that anybody knows."""
    home = tmp_path / "photos" / "of mine"
    home.mkdir(parents=True)
    for value in range(30):
        pixels = torch.randint(0, 256, (20, 12, 3), generator=torch.Generator().manual_seed(value))
        Image.fromarray(pixels.byte().numpy()).save(home / f"{value}.png")
    return f"images:root='{tmp_path}/photos'"


def test_distances_of_any_images_say_on_what_features(monkeypatch, folder: Path, photos: str) -> None:
    monkeypatch.setattr(building, "default_features", lambda: [f"image-features:folder='{folder}'"])
    one = Evaluator(photos)
    images = torch.randint(0, 256, (9, 3, 20, 12), generator=torch.Generator().manual_seed(99)).byte()
    values = one.measure([(images, torch.zeros(9, dtype=torch.int64))])
    assert values["frechet"] is not None
    assert values["precision"] is not None
    assert values["recall"] is not None
    # Its ten classes are not the data's.
    assert values["class-agreement"] is None
    assert one.describe()["features"].startswith("image-features sha256:")


def test_the_card_of_the_shipped_network_is_true() -> None:
    card = tomllib.loads((SHIPPED / "model.toml").read_text())
    last = json.loads((SHIPPED / "train.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] == card["provenance"]["test_accuracy"] >= 0.8
    assert last["parameters"] == sum(weight.numel() for weight in ImageFeatures().network.parameters())
    assert (SHIPPED / "weights.safetensors").stat().st_size < 4_000_000


def test_the_accuracy_on_the_test_images_is_the_cards(data_root: Path) -> None:
    """On every fifth of them."""
    if not (data_root / "cifar10-test.zip").is_file():
        pytest.skip(f"no cifar10-test.zip in {data_root}")
    data = trilemma.lookup.dataset("images:root=cifar10-test.zip")
    network = ImageFeatures()
    assert tuple(data.classes) == network.classes
    chosen = torch.arange(1000) * len(data) // 1000
    logits = network.observe(data.read(chosen).float() / 127.5 - 1).logits
    assert logits is not None
    found = (logits.argmax(1) == data.labels[chosen]).float().mean().item()
    assert found == pytest.approx(network.card["provenance"]["test_accuracy"], abs=0.05)
