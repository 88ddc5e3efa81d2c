"""Metrics of pairs: each sample beside the image that it was drawn for, of a model whose answer is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

import trilemma
from support.blocks import Blocks, spread
from trilemma.cli.app import main
from trilemma.engine.request import Request
from trilemma.errors import UsageError
from trilemma.evaluate import Evaluator, evaluate
from trilemma.interfaces.column import ImageColumn
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.models.card import save_model
from trilemma.testing import GaussianDenoiser

PROCESS = trilemma.process("vp-continuous")
WITHIN, SIDE = 0.02, 16


class BlockPairs(InMemoryDataset):
    """Images whose means of blocks are levels of bytes, beside these means; all images of the test split are darker."""

    def __init__(self, split: str = "train") -> None:
        generator = torch.Generator().manual_seed(len(split))
        means = torch.randint(0, 50, (60, 1, SIDE // 2, SIDE // 2), generator=generator).float()
        means += 65 if split == "test" else 140
        inner = 127.5 * WITHIN**0.5 * torch.randn(60, 1, SIDE, SIDE, generator=generator)
        levels = spread(means) + inner - spread(avg_pool2d(inner, 2))
        low = means.to(torch.uint8)
        column = ImageColumn(lambda rows: low[rows], 60, low.shape[1:], split)
        images = levels.round().clamp(0, 255).to(torch.uint8)
        super().__init__(images, torch.zeros(60, dtype=torch.int64), (), {"low": column})
        self.low = low


@pytest.fixture
def model(register):
    register("dataset", "block-pairs", BlockPairs)
    return Blocks(PROCESS, "v", (1, SIDE, SIDE), between=4.0, within=WITHIN)


def measured(model, metrics=("psnr", "ssim", "frechet"), n=60, **options):
    evaluator = Evaluator("block-pairs", None, metrics, cond={"low_level": 25.0}, **options)
    request = Request(model, n, sampler="ddim", steps=150, batch_size=25, progress=False)
    return evaluate(request, evaluator)


def test_a_sample_is_compared_with_the_image_that_it_was_drawn_for(model):
    record = measured(model)
    # Both have details of the variance 3/4 of `within`, independent of each other.
    expected = 10 * math.log10(4 / (1.5 * WITHIN))
    assert list(record["metrics"]) == ["psnr", "ssim", "frechet"]
    assert record["metrics"]["psnr"] == pytest.approx(expected, abs=0.6)
    assert record["cond"] == "the test low, in their proportions; low_level=25.0"
    data = BlockPairs("test")
    large = interpolate(data.low.float(), (SIDE, SIDE), mode="bicubic").round()
    lowest, highest = (bound(dim=(1, 2, 3), keepdim=True).float() for bound in (data.low.amin, data.low.amax))
    error = (large.clamp(lowest, highest) - data.images.float()).double().square().mean((1, 2, 3))
    assert record["enlarged"]["by"] == "bicubic"
    assert record["enlarged"]["metrics"]["psnr"] == pytest.approx(
        float((10 * (255**2 / error).log10()).mean()), abs=1e-5
    )
    assert set(record["enlarged"]["metrics"]) == set(record["metrics"])


def test_pairs_are_of_the_split_asked_for_and_n_may_be_any(model):
    few = measured(model, ("psnr",), n=7, measured="train")
    assert few["cond"].startswith("the training low")
    many = measured(model, ("psnr",), n=130)
    expected = 10 * math.log10(4 / (1.5 * WITHIN))
    for record in (few, many):
        assert record["metrics"]["psnr"] == pytest.approx(expected, abs=0.6)
        assert record["features"] is None


def test_without_pairs_the_samples_are_told_the_training_images(model):
    record = measured(model, ("frechet",))
    assert record["cond"].startswith("the training low")
    assert "enlarged" not in record


def test_on_the_command_line(model, register, tmp_path, capsys):
    register("denoiser", "test-blocks", Blocks)
    card = {
        "model": {"name": "twice"},
        "process": {"spec": "vp-continuous"},
        "denoiser": {
            "spec": "test-blocks",
            "parameterization": "v",
            "options": {"between": 4.0, "within": WITHIN},
        },
        "data": {"shape": [1, SIDE, SIDE]},
        "evaluation": {
            "dataset": "block-pairs",
            "cond": {"low_level": 25.0},
            "metrics": ["psnr", "perceptual"],
        },
    }
    save_model(tmp_path / "twice", card, {})
    command = ["eval", str(tmp_path / "twice"), "-n", "20", "--steps", "12", "--no-progress"]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["features"].startswith("image-features sha256:")
    assert record["baseline"] is None
    assert 0 < record["metrics"]["perceptual"] < 4
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "bicubic" in shown
    assert "perceptual" in shown
    sweep = ["sweep", str(tmp_path / "twice"), "--option", "steps=2,12", "--metric", "psnr", "-n", "20"]
    assert main([*sweep, "--no-progress", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_model_that_is_told_no_images_of_the_data_is_refused(model, one_line):
    alone = GaussianDenoiser(PROCESS, shape=(1, SIDE, SIDE))
    with pytest.raises(UsageError, match="the model is told 0 images of block-pairs") as caught:
        evaluate(Request(alone, 4), Evaluator("block-pairs", None, ("psnr",)))
    one_line(caught.value)
    told = {"low": torch.zeros(1, 1, 8, 8), "low_level": 25.0}
    with pytest.raises(UsageError, match="psnr compares samples with the images that they are drawn for"):
        evaluate(Request(model, 4, cond=told), Evaluator("block-pairs", None, ("psnr",)))
