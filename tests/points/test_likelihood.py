"""The bound of the exact denoiser comes to the entropy of the rounded mixture, on every process."""

from __future__ import annotations

import pytest
import torch

from trilemma import lookup
from trilemma.evaluate import Evaluator
from trilemma.testing import GaussianMixtureDenoiser
from trilemma_plugins.points.dataset import Mixture2D

FEW = "mixture2d:n=4000"


def exact(process: str, deviation: float = 0.04) -> GaussianMixtureDenoiser:
    """The denoiser of the mixture before it is rounded, its variance that of the rounded: s² + Δ²/12."""
    means = [centre.view(2, 1, 1) for centre in Mixture2D(n=1).centres]
    variance = deviation**2 + (2 / 255) ** 2 / 12
    made = GaussianMixtureDenoiser(
        lookup.process(process), means, variance, parameterization="eps", shape=(2, 1, 1)
    )
    return made.eval()


def excess(model: GaussianMixtureDenoiser, spec: str) -> tuple[float, float]:
    """Bits per dimension above the surprisal of the same points, and the half-width of the interval."""
    evaluator = Evaluator(FEW, "points-features", (spec,))
    found = evaluator.measure_model(model, 4000, 4000, 0)[spec]
    floor = float(Mixture2D("test", n=4000).surprisals.mean())
    return found["bpd"] - floor, found["interval"]


@pytest.mark.parametrize(
    ("process", "spec"),
    [
        ("vdm:gamma_min=-10.5", "bpd:draws=16"),
        ("vdm:gamma_min=-10.5,schedule=cosine", "bpd:draws=16"),
        ("vdm:gamma_min=-10.5", "bpd:method=flow"),
    ],
)
def test_the_exact_denoiser_reaches_the_entropy(process: str, spec: str) -> None:
    above, interval = excess(exact(process), spec)
    print(process, spec, above, interval)
    assert -interval < above < 0.02 + interval
    assert interval < 0.05


def test_a_wrong_deviation_costs_its_divergence() -> None:
    above, interval = excess(exact("vdm:gamma_min=-10.5", deviation=0.06), "bpd:draws=16")
    print(above, interval)
