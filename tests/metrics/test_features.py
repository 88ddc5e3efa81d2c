"""The shipped feature network: its weights are those of its card, and it is what the card says."""

from __future__ import annotations

import gzip
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import trilemma_plugins.metrics
from trilemma.errors import TrilemmaError
from trilemma.evaluate import Evaluator, FeatureNetwork
from trilemma.interfaces.features import CHUNK
from trilemma_plugins.metrics.features import MnistFeatures

WEIGHTS = Path(trilemma_plugins.metrics.__file__).parent / "weights"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A copy of the shipped folder, to be damaged."""
    return Path(shutil.copytree(WEIGHTS, tmp_path / "weights"))


def test_it_is_a_feature_network_with_64_features_and_ten_classes() -> None:
    network = MnistFeatures()
    assert isinstance(network, FeatureNetwork)
    seen = network.observe(torch.zeros(3, 1, 28, 28), torch.tensor([1, 2, 3]))
    assert seen.features.shape == (3, 64)
    assert seen.logits is not None
    assert seen.logits.shape == (3, 10)
    assert seen.labels is not None
    assert seen.labels.tolist() == [1, 2, 3]
    assert (seen.features >= 0).all()


def test_features_of_an_image_do_not_depend_on_its_batch() -> None:
    network = MnistFeatures()
    images = torch.rand(CHUNK + 7, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = network.observe(images).features
    alone = torch.cat([network.observe(image[None]).features for image in images[-9:]])
    torch.testing.assert_close(whole[-9:], alone, rtol=1e-5, atol=1e-5)


def test_the_weights_are_small_and_the_log_ends_at_the_cards_accuracy() -> None:
    assert (WEIGHTS / "weights.safetensors").stat().st_size < 500_000
    card = tomllib.loads((WEIGHTS / "model.toml").read_text())
    last = json.loads((WEIGHTS / "train.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] == card["provenance"]["test_accuracy"] >= 0.99
    assert last["parameters"] == sum(weight.numel() for weight in MnistFeatures().network.parameters())


def test_the_accuracy_on_the_10000_test_images_is_the_cards(data_root: Path) -> None:
    def read(name: str, header: int) -> torch.Tensor:
        blob = gzip.decompress((data_root / "mnist" / name).read_bytes())
        return torch.from_numpy(np.frombuffer(blob, np.uint8, offset=header).copy())

    images = read("t10k-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
    labels = read("t10k-labels-idx1-ubyte.gz", 8).long()
    network = MnistFeatures()
    assert len(images) == 10_000
    logits = network.observe(images.float() / 127.5 - 1).logits
    found = float((logits.argmax(1) == labels).float().mean())
    assert found == pytest.approx(network.card["provenance"]["test_accuracy"], abs=2e-4)


@pytest.mark.parametrize("position", [0, 7, 5000, -1])
def test_a_flipped_bit_anywhere_in_the_weights_is_refused(damaged: Path, position: int) -> None:
    blob = bytearray((damaged / "weights.safetensors").read_bytes())
    blob[position] ^= 1
    (damaged / "weights.safetensors").write_bytes(blob)
    with pytest.raises(TrilemmaError, match="sha256"):
        MnistFeatures(str(damaged))


def test_missing_and_truncated_files_are_refused_in_one_line(damaged: Path) -> None:
    weights, card = damaged / "weights.safetensors", damaged / "model.toml"
    weights.write_bytes(weights.read_bytes()[:1000])
    _refused(damaged, "sha256")
    weights.unlink()
    _refused(damaged, "cannot read")
    card.write_text(card.read_text().replace("format = 1", "format = 2"))
    _refused(damaged, "has format 2, this version reads format 1")
    card.write_text("format = ")
    _refused(damaged, "no valid TOML")


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(TrilemmaError, match=r"mnist-features takes no images of shape \(3, 32, 32\)"):
        MnistFeatures().observe(torch.zeros(2, 3, 32, 32))


def _refused(folder: Path, reason: str) -> None:
    with pytest.raises(TrilemmaError, match=reason) as caught:
        MnistFeatures(str(folder))
    assert "\n" not in str(caught.value)


def test_loading_it_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    MnistFeatures()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_evaluation_takes_a_trained_feature_network_by_its_directory() -> None:
    by_name, by_folder = (
        Evaluator("mnist", features=named).network for named in ("mnist-features", str(WEIGHTS))
    )
    assert by_folder.identity == by_name.identity
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(by_folder.observe(images).features, by_name.observe(images).features)
