"""bpd: its terms add up, it says what it measured, and `trilemma eval` runs it without drawing samples."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from trilemma import lookup
from trilemma.cli.eval import command
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import evaluation, evaluator
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.testing import GaussianDenoiser
from trilemma_plugins.vdm.metric import BitsPerDimension
from trilemma_plugins.vdm.process import VDM

LABELS = torch.arange(96) % 2


def pixels(count: int = 96, deviation: float = 0.3) -> torch.Tensor:
    """Grey levels of N(0, s²)."""
    x = deviation * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def gaussian(**options: Any) -> GaussianDenoiser:
    return GaussianDenoiser(VDM(), 0.0, 0.09, "eps", (1, 4, 4), **options).eval()


def test_the_terms_add_up() -> None:
    found = BitsPerDimension(draws=2).measure(gaussian(), pixels(), LABELS, 40, 0)
    assert list(found) == ["bpd", "prior", "diffusion", "reconstruction", "interval", "images", "estimate"]
    assert found["bpd"] == pytest.approx(found["prior"] + found["diffusion"] + found["reconstruction"])
    assert found["images"] == 96
    assert found["interval"] > 0


def test_the_interval_covers_the_bound() -> None:
    """½ [γ₁ − γ₀ + ln (s² + e^{γ₀})/(s² + e^{γ₁})] nats of diffusion for data N(0, s²)."""
    found = BitsPerDimension(draws=20).measure(gaussian(), pixels(2000), None, 500, 0)
    low, high, s = -13.3, 5.0, 0.09
    nats = (high - low + math.log((s + math.exp(low)) / (s + math.exp(high)))) / 2
    assert found["diffusion"] == pytest.approx(nats / math.log(2), abs=2 * found["interval"])
    assert found["interval"] < 0.1


def test_bounds_of_fewer_steps_are_larger() -> None:
    bounds = [
        BitsPerDimension(steps=steps, draws=8).measure(gaussian(), pixels(), None, 96, 0)["bpd"]
        for steps in (10, 50, None)
    ]
    assert bounds[0] > bounds[1] > bounds[2]


def test_the_flow_is_the_density() -> None:
    """Of N(0, s²) at levels of width 2/255, to what the prior and dequantization move."""
    images = pixels(500)
    found = BitsPerDimension(method="flow", dequantization="uniform").measure(
        gaussian(), images, None, 250, 0
    )
    entropy = math.log2(0.3 * math.sqrt(2 * math.pi * math.e)) - math.log2(2 / 255)
    assert list(found) == ["bpd", "interval", "images", "estimate"]
    assert found["estimate"] == "flow"
    assert found["bpd"] == pytest.approx(entropy, abs=2 * found["interval"])


def test_a_model_with_a_null_class_is_measured_with_it() -> None:
    model = GaussianDenoiser(VDM(), [-0.9, 0.9, 0.0], 0.09, "eps", (1, 4, 4)).eval()
    alone, classes = (BitsPerDimension().measure(m, pixels(), LABELS, 96, 0) for m in (gaussian(), model))
    assert classes == alone


def test_half_precision_is_widened() -> None:
    torch.manual_seed(0)
    options = {"channels": [8], "blocks": 1, "groups": 4}
    network = lookup.denoiser("vdm", process=VDM("learned", width=8), shape=(1, 4, 4), **options).eval()
    same = BitsPerDimension().measure(network, pixels(4), None, 4, 0)
    half = BitsPerDimension().measure(network.bfloat16(), pixels(4), None, 4, 0)
    assert half["bpd"] == pytest.approx(same["bpd"], rel=1e-2)


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="its own data set"):
        BitsPerDimension().measure(gaussian(), pixels().view(-1, 1, 2, 8), None, 4, 0)
    for spec in ("bpd:method=exact", "bpd:steps=0", "bpd:draws=0"):
        with pytest.raises(UsageError):
            lookup.metric(spec)
    model = gaussian()
    model.forward = lambda z, t: z * math.nan  # type: ignore[method-assign,assignment]
    with pytest.raises(TrilemmaError, match="not finite"):
        BitsPerDimension().measure(model, pixels(), None, 96, 0)


def test_eval_draws_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gaussian()
    model.card = {
        "model": {"name": "gaussian"},
        "weights": {"sha256": "0" * 64},
        "evaluation": {"dataset": "gaussian"},
    }
    images = ((pixels() + 1) * 127.5).round().to(torch.uint8)
    split = InMemoryDataset(images, LABELS, tuple("0123456789"))
    real = lookup.build
    monkeypatch.setattr(evaluation, "load", lambda name, **options: model)
    monkeypatch.setattr(
        evaluator.lookup,
        "build",
        lambda kind, spec, **options: (split, spec) if kind == "dataset" else real(kind, spec, **options),
    )
    app = typer.Typer()
    app.command()(command)
    arguments = ["gaussian", "--metric", "bpd", "--metric", "bpd:steps=20", "-n", "50"]
    record = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert record["of_the_model"]["bpd"]["images"] == 50
    assert record["measured"] == "test"
    assert record["of_the_model"]["bpd:steps=20"]["bpd"] > 0
    assert record["metrics"] == {}
    printed = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert all(term in printed for term in ("prior", "diffusion", "reconstruction", "interval"))
