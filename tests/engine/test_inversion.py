"""Inversion: an image to its latent and back."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import trilemma
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.testing.counting import Counting, Spoiled
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM
from trilemma_plugins.processes.exploding import EDM, VE
from trilemma_plugins.processes.flow import Flow
from trilemma_plugins.processes.sub_vp import SubVP

GAUSSIAN = GaussianDenoiser(DiscreteVP(), 0.3, 0.25, shape=(1, 2, 2))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2


def there_and_back(model: Denoiser, x: torch.Tensor, refine: int, **settings: object) -> torch.Tensor:
    latent = trilemma.invert(model, x, refine=refine, **settings).samples  # type: ignore[arg-type]
    return trilemma.sample(model, latent=latent, **settings).samples  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", ["trailing", "uniform", "linspace"])
def test_there_and_back_is_exact_where_steps_are_solved(grid: str) -> None:
    x = images(3, 1, 2, 2)
    settings = {"sampler": DDIM(grid=grid), "steps": 10, "dtype": torch.float64}
    errors = [(there_and_back(GAUSSIAN, x, refine, **settings) - x).abs().max() for refine in (0, 20)]
    assert errors[0] > 1e-3
    assert errors[1] < 1e-9


PROCESSES: list[Process] = [DiscreteVP(), ContinuousVP("cosine"), Flow(), VE(), EDM(), SubVP()]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("steps", [5, 20])
def test_every_step_of_an_exact_model_has_its_preimage_and_it_is_found(process: Process, steps: int) -> None:
    """x̂₀ has the slope α Cov[x₀ | z]/σ² ≥ 0, so that a step of DDIM is strictly monotone, however long it is."""
    model = GaussianMixtureDenoiser(process)
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).view(-1, 1, 1, 1)
    settings: dict[str, Any] = {"sampler": DDIM(), "steps": steps, "dtype": torch.float64}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latent = trilemma.invert(model, x, **settings)
    back = trilemma.sample(model, latent=latent.samples, **settings).samples
    assert float((back - x).abs().max()) < 1e-9
    assert latent.residual is not None
    assert float(latent.residual.max()) == latent.provenance["inversion"]["residual"] < 2e-11


@pytest.mark.parametrize(("steps", "label"), [(10, 0), (10, 1), (20, 1), (20, 2), (50, 0), (50, 2)])
def test_strong_guidance_is_inverted_across_its_folds(steps: int, label: int) -> None:
    """At scale 7.5 steps fold over: they have up to eight preimages, some of them far away."""
    model = GaussianMixtureDenoiser(DiscreteVP())
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).view(-1, 1, 1, 1)
    settings: dict[str, Any] = {
        "sampler": DDIM(), "steps": steps, "dtype": torch.float64, "guidance": CFG(7.5), "cond": {"class": label}
    }  # fmt: skip
    latent = trilemma.invert(model, x, refine=200, **settings)
    back = trilemma.sample(model, latent=latent.samples, **settings).samples
    assert float((back - x).abs().max()) < 1e-9


def test_images_of_many_numbers_are_inverted_and_none_depends_on_the_others() -> None:
    model = GaussianMixtureDenoiser(DiscreteVP(), shape=(1, 4, 4))
    x = model.draw(9, torch.Generator().manual_seed(0))
    x[4] *= 3
    settings: dict[str, Any] = {"sampler": DDIM(), "steps": 10, "dtype": torch.float64}
    whole = trilemma.invert(model, x, **settings)
    back = trilemma.sample(model, latent=whole.samples, **settings).samples
    assert float((back - x).abs().max()) < 1e-9
    for parts in ({"batch_size": 2}, {"batch_size": 1}, {"deterministic": True}):
        again = trilemma.invert(model, x, **settings, **parts)
        torch.testing.assert_close(again.samples, whole.samples, rtol=1e-11, atol=1e-11)
        assert again.residual is not None
        assert again.residual.shape == (9,)
        assert float(again.residual.max()) < 2e-11


def test_an_image_without_a_latent_is_named_with_its_residual() -> None:
    """Data are −1 and 1: x̂₀ lies between them, so that nothing leads to 1.2."""
    model = GaussianMixtureDenoiser(DiscreteVP(), (-1.0, 1.0), 0.0)
    x = torch.tensor([0.3, 1.2], dtype=torch.float64).view(-1, 1, 1, 1)
    settings: dict[str, Any] = {"sampler": DDIM(), "steps": 4, "dtype": torch.float64}
    with pytest.warns(UserWarning, match="1 of 2 images were inverted to a residual of") as record:
        latent = trilemma.invert(model, x, **settings)
    assert "\n" not in str(record[0].message)
    assert latent.residual is not None
    assert float(latent.residual[0]) < 2e-11
    assert float(latent.residual[1]) == pytest.approx(0.2 / 1.2, abs=0.01)
    back = trilemma.sample(model, latent=latent.samples, **settings).samples
    assert abs(float(back[0]) - 0.3) < 1e-9


def test_a_tolerance_ends_the_rounds_and_is_kept() -> None:
    model = GaussianMixtureDenoiser(DiscreteVP(), shape=(1, 4, 4))
    x = model.draw(4, torch.Generator().manual_seed(0))
    loose, tight = (
        trilemma.invert(model, x, sampler=DDIM(), steps=10, dtype=torch.float64, tolerance=tolerance)
        for tolerance in (1e-2, 1e-10)
    )
    assert loose.provenance["nfe"] < tight.provenance["nfe"]
    assert loose.provenance["inversion"]["residual"] < 1e-2
    assert tight.provenance["inversion"]["residual"] < 1e-10


def test_a_network_that_answers_nan_is_refused() -> None:
    with pytest.raises(TrilemmaError, match="not finite"):
        trilemma.invert(Spoiled(GAUSSIAN, row=0), images(2, 1, 2, 2), sampler=DDIM(), steps=2)


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
        "tolerance": 5e-5,
    }
    latent = trilemma.invert(convolution, x, **settings)  # type: ignore[arg-type]
    del settings["tolerance"]
    back = trilemma.sample(convolution, latent=latent.samples, **settings)  # type: ignore[arg-type]
    assert torch.allclose(back.samples, x, atol=1e-3)


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


def test_unsolved_steps_pay_one_evaluation_each_and_solved_ones_what_they_ask() -> None:
    x = images(1, 1, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = trilemma.invert(GAUSSIAN, x, sampler=DDIM(), steps=7, refine=0)
    assert plain.provenance["nfe"] == 7
    assert plain.provenance["inversion"] == {"refine": 0, "tolerance": None, "residual": None}
    assert plain.residual is None
    model = Counting(GAUSSIAN)
    solved = trilemma.invert(model, x, sampler=DDIM(), steps=7, refine=5)
    assert solved.provenance["nfe"] == len(model.times) > 7
    assert solved.provenance["inversion"]["refine"] == 5
    assert solved.provenance["sampler"].startswith("ddim")


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


@pytest.mark.parametrize("tolerance", [0, -1e-3, float("nan"), float("inf"), True, "1e-3"])
def test_impossible_tolerances_are_refused(tolerance: object) -> None:
    with pytest.raises(UsageError, match="tolerance="):
        trilemma.invert(GAUSSIAN, images(1, 1, 2, 2), tolerance=tolerance)  # type: ignore[arg-type]
