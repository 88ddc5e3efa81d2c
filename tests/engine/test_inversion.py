"""Inversion: an image to its latent and back."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma.denoiser import Denoiser
from trilemma.errors import UsageError
from trilemma.sampler import Sampler
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM

GAUSSIAN = GaussianDenoiser(DiscreteVP(), 0.3, 0.25, shape=(1, 2, 2))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2


def there_and_back(model: Denoiser, x: torch.Tensor, refine: int, **settings: object) -> torch.Tensor:
    latent = trilemma.invert(model, x, refine=refine, **settings).samples  # type: ignore[arg-type]
    return trilemma.sample(model, latent=latent, **settings).samples  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", ["trailing", "uniform", "linspace"])
def test_there_and_back_is_exact_with_enough_refinement(grid: str) -> None:
    x = images(3, 1, 2, 2)
    settings = {"sampler": DDIM(grid=grid), "steps": 10, "dtype": torch.float64}
    errors = [(there_and_back(GAUSSIAN, x, refine, **settings) - x).abs().max() for refine in (0, 2, 5, 25)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-12


@pytest.mark.parametrize("guidance", [None, CFG(1.5)], ids=str)
def test_a_random_network_is_inverted_under_guidance_and_in_batches(
    convolution: Denoiser, guidance: CFG | None
) -> None:
    x = images(5, 2, 6, 6).float()
    settings = {
        "sampler": DDIM(),
        "steps": 20,
        "guidance": guidance,
        "cond": {"class": [0, 1, 2]},
        "batch_size": 2,
    }
    assert torch.allclose(there_and_back(convolution, x, 12, **settings), x, atol=1e-4)


def test_any_process_and_parameterization_is_inverted() -> None:
    x = images(2, 1, 2, 2)
    for parameterization in ("x0", "eps", "v"):
        model = GaussianDenoiser(ContinuousVP("cosine"), 0.0, 0.25, parameterization, (1, 2, 2))
        settings = {"sampler": DDIM(), "steps": 20, "dtype": torch.float64}
        assert torch.allclose(there_and_back(model, x, 12, **settings), x, atol=1e-9)


def test_the_latent_is_where_the_flow_comes_from() -> None:
    """The flow keeps (z − α m)/√(α² s² + σ²): with many steps the latent of x is exact, first order in 1/steps."""
    x = images(2, 1, 2, 2)
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = GAUSSIAN.process.alpha(one), GAUSSIAN.process.sigma(one)
    exact = alpha * 0.3 + (x - 0.3) / 0.5 * (alpha.square() * 0.25 + sigma.square()).sqrt()
    errors = [
        (
            trilemma.invert(GAUSSIAN, x, steps=steps, dtype=torch.float64, refine=3, sampler=DDIM()).samples
            - exact
        )
        .abs()
        .max()
        for steps in (20, 40, 80)
    ]
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.3)
    assert errors[2] < 0.15


def test_each_refinement_pays_one_evaluation_a_step() -> None:
    drawn = trilemma.invert(GAUSSIAN, images(1, 1, 2, 2), sampler=DDIM(), steps=7, refine=2)
    assert drawn.provenance["nfe"] == 7 * 3
    assert drawn.provenance["inversion"] == {"refine": 2}
    assert drawn.provenance["sampler"].startswith("ddim")


def test_the_callback_of_an_inversion_sees_rising_times() -> None:
    seen: list[float] = []
    trilemma.invert(
        GAUSSIAN,
        images(1, 1, 2, 2),
        sampler=DDIM(),
        steps=4,
        refine=0,
        callback=lambda step, steps, t, state: seen.append(t),
    )
    assert seen == [0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("sampler", [DDIM(eta=0.5), DDPM(), DDIM(clip=1.0)], ids=str)
def test_what_cannot_be_inverted_is_refused(sampler: Sampler) -> None:
    with pytest.raises(UsageError, match="deterministic sampler") as error:
        trilemma.invert(GAUSSIAN, images(1, 1, 2, 2), sampler=sampler, steps=5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("refine", [-1, 1.5, True])
def test_impossible_refinements_are_refused(refine: object) -> None:
    with pytest.raises(UsageError, match="refine="):
        trilemma.invert(GAUSSIAN, images(1, 1, 2, 2), refine=refine)  # type: ignore[arg-type]
