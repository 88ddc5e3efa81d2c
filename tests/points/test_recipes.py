"""The recipes of the points learn; in a few hundred steps here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma import Request
from trilemma.evaluate import Evaluator, evaluate, untrained
from trilemma.interfaces.denoiser import Denoiser
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train
from trilemma_plugins.points.dataset import Mixture2D

RECIPES = Path(__file__).parents[2] / "plugins" / "trilemma_plugins" / "points" / "recipes"
SAMPLERS = {"cld": "gddim", "ddpm": "dpmpp-2m", "energy": "dpmpp-2m", "vdm": "dpmpp-2m"}
SHORT = ["steps=300", "optimizer.warmup=20", "ema=0.95", "checkpoint_every=300"]
TEST_POINTS = "mixture2d:n=2000"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model of a recipe cut to 300 steps, trained once."""
    models: dict[str, Denoiser] = {}

    def get(name: str) -> Denoiser:
        if name not in models:
            folder = tmp_path_factory.mktemp(name)
            models[name] = trilemma.load(train(read_recipe(RECIPES / f"{name}.toml", SHORT), folder).model)
        return models[name]

    return get


def frechet(model: Denoiser, sampler: str, steps: int = 20) -> float:
    evaluator = Evaluator(TEST_POINTS, "points-features", ("frechet",))
    record = evaluate(Request(model, sampler=sampler, steps=steps, n=1000, batch_size=1000), evaluator)
    return float(record["metrics"]["frechet"])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_its_samples_are_twice_as_near(name: str, trained: Any) -> None:
    model = trained(name)
    assert frechet(model, SAMPLERS[name]) < frechet(untrained(model, 0), SAMPLERS[name]) / 2


def test_a_class_is_its_mode(trained: Any) -> None:
    model = trained("ddpm")
    evaluator = Evaluator("mixture2d:n=8", "points-features", ("class-agreement",))
    record = evaluate(Request(model, sampler="dpmpp-2m", steps=20, n=400, batch_size=400), evaluator)
    assert record["metrics"]["class-agreement"] > 0.9


def test_the_bound_comes_near_the_entropy(trained: Any) -> None:
    """Of the same points: what the law gives them is below it, and what a fresh network gives them far above."""
    model = trained("vdm")
    evaluator = Evaluator(TEST_POINTS, "points-features", ("bpd:draws=32",))
    found, fresh = (
        evaluator.measure_model(m, 2000, 2000, 0)["bpd:draws=32"] for m in (model, untrained(model, 0))
    )
    floor = float(Mixture2D("test", n=2000).surprisals.mean())
    assert floor - found["interval"] < found["bpd"] < floor + 0.2
    assert fresh["bpd"] > floor + 1


def test_a_generator_against_a_discriminator_finds_every_mode_in_one_step(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "gan.toml", ["steps=600", "batch_size=128", "ema=0.98"])
    result = train(recipe, tmp_path / "run")
    model = trilemma.load(result.model)
    drawn = trilemma.sample(model, 2000)
    assert drawn.provenance["nfe"] == 1
    near = torch.cdist(drawn.samples.flatten(1), Mixture2D().centres.float())
    counts = torch.bincount(near.argmin(1), minlength=8)
    assert int(counts.min()) > 2000 / 8 / 4
    # Before it learns they lie 0.6 off.
    assert float(near.min(1).values.median()) < 0.2
    assert frechet(model, "ddim", 1) < 0.5
    assert abs(result.last["discriminator_gap"]) < 1


def test_the_score_of_an_energy_has_no_curl(trained: Any) -> None:
    """∂ε̂₁/∂z₂ = ∂ε̂₂/∂z₁, as of any gradient; the answer of `mlp` does not have it."""

    def curl(model: Denoiser) -> float:
        z = torch.randn(50, 2, 1, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
        label = {} if not model.conditions else {"class": torch.zeros(50, dtype=torch.int64)}
        first, second = model(z, torch.full((50,), 0.3), **label).flatten(1).unbind(1)
        (one,) = torch.autograd.grad(first.sum(), z, retain_graph=True)
        (two,) = torch.autograd.grad(second.sum(), z)
        return float((one[:, 1] - two[:, 0]).abs().max() / one.abs().max())

    assert curl(trained("energy")) < 1e-4
    assert curl(trained("ddpm")) > 1e-2


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_recipe_reads(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert recipe.name == f"points-{name}"
    assert recipe.evaluation["features"] == "points-features"
