"""Similarity of pairs of images, and the metric of autoencoders."""

from __future__ import annotations

import json
import math

import pytest
import torch

import trilemma
from trilemma import Autoencoder, lookup
from trilemma.cli.app import main
from trilemma.errors import UsageError
from trilemma.evaluate import Evaluator, evaluate_model
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.models.building import build
from trilemma.models.card import save_model
from trilemma.testing import GaussianDenoiser
from trilemma_plugins.metrics.reconstruction import Reconstruction
from trilemma_plugins.metrics.similarity import peak_signal_to_noise, structural_similarity

SHAPE = (1, 32, 32)


def pictures(count, seed=0, shape=SHAPE):
    pixels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed))
    return pixels.to(torch.uint8)


def test_the_ratio_is_that_of_the_range_to_the_mean_error():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.5 - 1
    found = peak_signal_to_noise(x, torch.stack([x[0] + 0.2, x[1]]))
    # (2/0.2)² is 20 dB.
    torch.testing.assert_close(found[0], torch.tensor(20.0, dtype=torch.float64), atol=1e-4, rtol=0)
    assert found[1] == math.inf


def test_similarity_of_equal_shifted_and_scaled_images():
    x = torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(structural_similarity(x, x), torch.ones(2, dtype=torch.float64))
    c1, c2 = 0.02**2, 0.06**2
    flat = torch.full((1, 1, 20, 20), 0.5, dtype=torch.float64)
    # Without variance the structure is 1, and the means are left.
    expected = (2 * 0.5 * 0.2 + c1) / (0.5**2 + 0.2**2 + c1)
    torch.testing.assert_close(structural_similarity(flat, flat - 0.3)[0].item(), expected)
    # At each pixel the moments are sums over the window, reflected at the borders.
    first, second = (torch.nn.functional.pad(entry, (5, 5, 5, 5), mode="reflect")[0] for entry in x.split(1))
    place = torch.arange(11, dtype=torch.float64) - 5
    line = (-place.square() / 4.5).exp()
    weights = line[:, None] * line / line.sum() ** 2
    at = []
    for row in range(20):
        for column in range(24):
            a, b = (entry[0, row : row + 11, column : column + 11] for entry in (first, second))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            at.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    torch.testing.assert_close(structural_similarity(x[:1], x[1:])[0], torch.stack(at).mean())
    assert structural_similarity(x[:, :, :5], x[:, :, :5].flip(0)).shape == (2,)


def test_it_is_that_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    x = torch.rand(3, 3, 24, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    y = (x + 0.3 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    wanted = image.structural_similarity_index_measure(x, y, data_range=2.0, reduction="none")
    torch.testing.assert_close(structural_similarity(x, y), wanted, atol=1e-6, rtol=0)
    ratio = image.peak_signal_noise_ratio(x, y, data_range=2.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(peak_signal_to_noise(x, y), ratio, atol=1e-6, rtol=0)


class Fourths(Autoencoder):
    """The mean of 4×4 pixels, one code a patch; with `spot`, the code of the first place is many times larger."""

    def __init__(self, shape, spot=1.0, off=0.0):
        super().__init__(shape, 1)
        self.spot, self.off = spot, torch.nn.Parameter(torch.tensor(float(off)))

    def code_shape(self, shape):
        return 1, shape[1] // 4, shape[2] // 4

    def encode(self, x):
        code = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4)
        scale = torch.ones_like(code)
        scale[:, :, 0, 0] = self.spot
        return code * scale, torch.full_like(code, -30.0)

    def decode(self, code):
        scale = torch.ones_like(code)
        scale[:, :, 0, 0] = self.spot
        image = (code / scale).repeat_interleave(4, 2).repeat_interleave(4, 3) + self.off
        return image.expand(-1, self.shape[0], -1, -1)


def measured(coder, images, batch=50, **options):
    metric = Reconstruction(**options)
    return metric.measure(coder.eval().requires_grad_(False), images, None, batch, 0)


def test_a_coarser_image_loses_what_it_should():
    """Patches of one value come back but for the rounding to grey levels; a fixed offset costs its own square."""
    patches = pictures(60, shape=(1, 8, 8)).float() / 127.5 - 1
    images = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
    exact = measured(Fourths(SHAPE), images)
    assert exact["psnr"] == 100
    assert exact["ssim"] == pytest.approx(1)
    assert exact["frechet"] == pytest.approx(0, abs=1e-4)
    assert exact["images"] == 60
    assert exact["features"].startswith("image-features sha256:")
    images = (0.5 * images * 127.5).round() / 127.5
    shifted = measured(Fourths(SHAPE, off=16 / 127.5), images)
    assert shifted["psnr"] == pytest.approx(20 * math.log10(2 * 127.5 / 16), abs=0.2)
    assert shifted["frechet"] > exact["frechet"] + 1e-3
    whole, parts = (measured(Fourths(SHAPE, off=0.1), images, batch) for batch in (60, 7))
    assert {**whole} == pytest.approx({**parts})


def test_a_place_that_stands_out_is_found():
    images = pictures(60).float() / 127.5 - 1
    assert measured(Fourths(SHAPE), images)["peak"] < 1.5
    assert measured(Fourths(SHAPE, spot=50.0), images)["peak"] == pytest.approx(50, rel=0.3)


class Greys(InMemoryDataset):
    """Random images, of another seed in every split."""

    def __init__(self, split: str = "train") -> None:
        seed = {"train": 1, "test": 2, "other": 3}.get(split)
        if seed is None:
            raise UsageError(f"greys: no split {split}")
        super().__init__(pictures(40, seed), torch.zeros(40, dtype=torch.int64), ())


@pytest.fixture
def folder(tmp_path, register):
    register("autoencoder", "test-fourths", Fourths)
    register("dataset", "test-greys", Greys)
    card = {
        "model": {"name": "fourths", "kind": "autoencoder"},
        "autoencoder": {"spec": "test-fourths"},
        "data": {"shape": [1, 32, 32], "dataset": "test-greys:split=train"},
        "evaluation": {"dataset": "test-greys"},
    }
    save_model(tmp_path / "ae", card, build(card, seed=0).state_dict())
    return tmp_path / "ae"


@pytest.mark.parametrize("asked", ["", "train", "other"])
def test_the_command_measures_an_autoencoder_on_a_split(folder, capsys, asked):
    options, split = (["--split", asked] if asked else []), asked or "test"
    assert main(["eval", str(folder), "-n", "30", "--json", *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["measured"] == split
    assert record["model"]["name"] == "fourths"
    rows = torch.arange(40)[torch.arange(30) * 40 // 30]
    images = Greys(split).read(rows).float() / 127.5 - 1
    expected = measured(trilemma.load(folder), images)
    assert record["of_the_model"]["reconstruction"] == pytest.approx(expected)
    assert main(["eval", str(folder), "-n", "30", *options]) == 0
    assert "psnr" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused(folder, capsys):
    for options, words, code in (
        (["--metric", "bpd"], "bpd does not measure a Fourths", 2),
        (["--split", "none"], "no split none", 2),
        (["--metric", "frechet"], "is not a denoiser", 2),
        (["--features", "mnist-features"], "takes no images", 1),
    ):
        assert main(["eval", str(folder), *options]) == code
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_a_latent_model_is_measured_by_its_autoencoder(folder):
    coder = trilemma.load(folder)
    network = GaussianDenoiser(trilemma.process("vp-continuous"), 0.0, 1.0, "v", (1, 8, 8)).eval()
    network.view = Latent(coder, SHAPE)
    evaluator = Evaluator("test-greys", metrics=["reconstruction"])
    record = evaluate_model(network, evaluator, n=30)
    assert record["of_the_model"] == evaluate_model(coder, evaluator, n=30)["of_the_model"]
    assert lookup.metric("reconstruction").seen_by("image-features").features == "image-features"
    with pytest.raises(UsageError, match="has no codes"):
        Reconstruction().measure(trilemma.load("mnist"), torch.zeros(4, 1, 28, 28), None, 4, 0)
