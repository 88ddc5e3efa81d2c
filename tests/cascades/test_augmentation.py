"""Noise on the image that a network is told, and its level beside it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import trilemma
from trilemma.errors import UsageError
from trilemma.numerics.noise_levels import level_of, log_snr_of, noised
from trilemma.train.recipe import make_recipe, read_recipe
from trilemma.train.trainer import train
from trilemma_plugins.cascades import augmentation
from trilemma_plugins.cascades.augmentation import ConditioningAugmentation, blurred

# λ of s = 0.5 and of s = 0.01.
LEVEL = {"kind": "scalar", "name": "low_level", "low": 1.0986, "high": 9.21}
LOW = {"kind": "image", "name": "low", "shape": [1, 4, 4], "resize": "bilinear"}
RECIPES = sorted((Path(augmentation.__file__).parent / "recipes").glob("*.toml"))


def network(*conditions: dict) -> trilemma.Denoiser:
    options = {"channels": [8], "blocks": 1, "groups": 4, "conditions": list(conditions)}
    return trilemma.denoiser("unet", process=trilemma.process("vp"), shape=(1, 8, 8), **options)


def told(count: int = 20_000, blur: float = 0.0, seed: int = 0) -> dict[str, torch.Tensor]:
    images = torch.full((count, 1, 4, 4), 0.7)
    generator = torch.Generator().manual_seed(seed)
    made = ConditioningAugmentation(trilemma.objective("simple"), blur=blur)
    return made.told(network(LOW, LEVEL), {"low": images}, generator)


def test_levels_and_log_snr_are_inverse():
    levels = torch.linspace(0.001, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(level_of(log_snr_of(levels)), levels)
    assert float(log_snr_of(torch.zeros(()))) == float("inf")
    process = trilemma.process("vp-continuous")
    t = torch.linspace(0.01, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(level_of(process.log_snr(t)), process.sigma(t))


def test_noise_keeps_the_variance_of_standardised_images():
    noise = torch.randn(4, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    found = noised(torch.full_like(noise, 0.5), torch.tensor([0.0, 0.1, 0.5, 0.9]), noise)
    for images, s in zip(found, (0.0, 0.1, 0.5, 0.9), strict=True):
        assert float(images.mean()) == pytest.approx(0.5 * (1 - s**2) ** 0.5, abs=0.03)
        assert float(images.std()) == pytest.approx(s, rel=0.02, abs=1e-6)


def test_the_level_that_is_told_is_that_of_the_noise():
    found = told()
    level = level_of(found["low_level"].double())
    scaled = (found["low"].double() - 0.7 * (1 - level.square()).sqrt().view(-1, 1, 1, 1)) / level.view(
        -1, 1, 1, 1
    )
    clean = found["low_level"] >= 9.21 - 1e-3
    assert float(clean.double().mean()) == pytest.approx(0.01 / 0.5, rel=0.2)
    normals = scaled[~clean]
    assert float(normals.mean()) == pytest.approx(0, abs=0.01)
    assert float(normals.var()) == pytest.approx(1, abs=0.01)
    # s ~ U(0, 0.5).
    counts = torch.histc(level[~clean], 5, 0.0, 0.5)
    np.testing.assert_allclose(counts / counts.sum(), 0.2, atol=0.015)


def test_all_draws_are_the_generators():
    first, second, other = told(50, 0.5), told(50, 0.5), told(50, 0.5, seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["low"], other["low"])


def test_a_blur_is_scipys():
    images = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviations = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
    for image, deviation, found in zip(images, deviations.tolist(), blurred(images, deviations), strict=True):
        expected = ndimage.gaussian_filter(
            image.numpy(), (0, deviation, deviation), mode="mirror", radius=(0, 1, 1)
        )
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_half_of_the_images_are_blurred(monkeypatch):
    monkeypatch.setattr(
        augmentation,
        "blurred",
        lambda images, deviations: images + 100 * deviations.to(images).view(-1, 1, 1, 1),
    )
    found = told(2000, 0.5)["low"].mean((1, 2, 3))
    blurry = found > 20
    assert float(blurry.double().mean()) == pytest.approx(0.5, abs=0.05)
    assert not bool((told(2000, 0.0)["low"] > 20).any())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: trilemma.objective("conditioning-augmentation:objective=simple(),blur=2"), "blur=2"),
        (
            lambda: trilemma.objective("conditioning-augmentation:objective=simple"),
            "objective='simple' is none",
        ),
        (
            lambda: ConditioningAugmentation(trilemma.objective("simple")).told(
                network(LOW), {"low": torch.zeros(1, 1, 4, 4)}, torch.Generator()
            ),
            "takes no scalar 'low_level'; give it one",
        ),
        (
            lambda: ConditioningAugmentation(trilemma.objective("simple"), image="lo").told(
                network(LOW, LEVEL), {}, torch.Generator()
            ),
            "takes no image 'lo'",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, words, one_line):
    with pytest.raises(UsageError, match=words) as caught:
        make()
    one_line(caught.value)


def test_a_stage_is_trained_and_drawn(tmp_path):
    recipe = make_recipe(
        {
            "steps": 3,
            "batch_size": 8,
            "tensorboard": False,
            "dataset": {"spec": 'degraded:of="digits",factor=2,by=area'},
            "process": {"spec": "vp-continuous"},
            "denoiser": {
                "spec": "unet",
                "options": {"channels": [8], "blocks": 1, "groups": 4, "conditions": [LOW, LEVEL]},
            },
            "objective": {"spec": "conditioning-augmentation:objective=simple()"},
            "validation": {"dataset": 'degraded:of="digits",factor=2,by=area,split=test', "n": 16},
        }
    )
    result = train(copy.deepcopy(recipe), tmp_path / "run")
    assert "validation_loss" in result.last
    model = trilemma.load(result.model)
    drawn = trilemma.sample(model, 2, steps=2, cond={"low": torch.zeros(1, 4, 4), "low_level": 5.0})
    assert drawn.samples.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_can_be_read(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
