"""Classifier-free guidance against Gaussians whose guided samples are known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP

PROCESS = DiscreteVP()
MEAN, NULL_MEAN, VARIANCE = 0.5, -0.2, 0.04


def model(parameterization: str = "eps") -> Denoiser:
    return GaussianDenoiser(PROCESS, [MEAN, NULL_MEAN], VARIANCE, parameterization)


def draw(scale: float, steps: int, grid: str, parameterization: str = "eps", start: float = 0.0) -> float:
    return trilemma.sample(
        model(parameterization),
        latent=torch.full((1, 1, 1, 1), start, dtype=torch.float64),
        sampler=DDIM(grid=grid),
        steps=steps,
        guidance=CFG(scale),
        cond={"class": 0},
        dtype=torch.float64,
    ).samples.item()


def exact(scale: float, start: float) -> float:
    """The flow of N(m̃, s²) with m̃ = m_∅ + scale (m − m_∅), from t = 1."""
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = PROCESS.alpha(one).item(), PROCESS.sigma(one).item()
    m = NULL_MEAN + scale * (MEAN - NULL_MEAN)
    return m + (VARIANCE / (alpha**2 * VARIANCE + sigma**2)) ** 0.5 * (start - alpha * m)


def test_guided_gaussians_land_on_the_guided_gaussian() -> None:
    """The paper's w = 2 is scale = 3; x_T = 0."""
    assert round(exact(3.0, 0.0), 4) == 1.8976
    assert round(draw(3.0, 50, "uniform"), 4) == 1.8974
    assert round(draw(3.0, 1000, "uniform"), 4) == 1.8976


@settings(max_examples=6, deadline=None)
@given(
    scale=st.floats(-2, 8),
    start=st.floats(-2, 2),
    parameterization=st.sampled_from(["x0", "eps", "v", "score"]),
)
def test_any_scale_in_any_parameterization(scale: float, start: float, parameterization: str) -> None:
    drawn = draw(scale, 50, "trailing", parameterization, start)
    assert drawn == pytest.approx(exact(scale, start), abs=0.1)
    assert drawn == pytest.approx(draw(scale, 50, "trailing", "eps", start), abs=1e-9)


def test_scale_one_is_no_guidance_and_one_branch() -> None:
    settings = {"sampler": DDIM(), "steps": 5, "cond": {"class": 0}}
    guided = trilemma.sample(model(), 3, guidance=CFG(1.0), **settings)
    plain = trilemma.sample(model(), 3, **settings)
    assert torch.equal(guided.samples, plain.samples)
    assert guided.provenance["nfe"] == plain.provenance["nfe"] == 5
    assert trilemma.sample(model(), 3, guidance=CFG(2.0), **settings).provenance["nfe"] == 10


def test_scale_zero_is_the_null_condition() -> None:
    settings = {"sampler": DDIM(), "steps": 5, "dtype": torch.float64}
    nothing = trilemma.sample(model(), 3, guidance=CFG(0.0), cond={"class": 0}, **settings).samples
    assert torch.allclose(nothing, trilemma.sample(model(), 3, **settings).samples, atol=1e-12)


def test_the_branches_are_the_condition_and_its_null() -> None:
    bound = CFG(2.5).bind(model(), {"class": [1, 2]}, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert [branch.cond for branch in bound.branches] == [{"class": [1, 2]}, {"class": None}]
    assert bound.weights(0.3) == (2.5, -1.5)


def test_a_clip_comes_after_the_mixture() -> None:
    """x̂₀ of the mixture is about 1.9; clipped to 1 it ends there, while both branches alone stay below."""
    drawn = trilemma.sample(
        model(), 2, sampler=DDIM(clip=1.0), steps=20, guidance=CFG(3.0), cond={"class": 0}
    ).samples
    assert torch.equal(drawn, torch.ones_like(drawn))


@pytest.mark.parametrize(
    ("denoiser", "cond", "words"),
    [
        (GaussianDenoiser(PROCESS), {}, "takes no condition"),
        (model(), {}, "needs a condition"),
        (model(), {"label": 1}, "unknown condition 'label'"),
    ],
)
def test_models_that_cannot_be_guided_are_refused(
    denoiser: Denoiser, cond: dict[str, int], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as error:
        trilemma.sample(denoiser, guidance=CFG(2.0), cond=cond, sampler=DDIM(), steps=2)
    assert "\n" not in str(error.value)


def test_a_model_without_a_null_class_is_refused() -> None:
    class Hard(Denoiser):
        def forward(self, z: torch.Tensor, t: torch.Tensor, **cond: torch.Tensor) -> torch.Tensor:
            return z

    with pytest.raises(UsageError, match="'class' has none"):
        trilemma.sample(
            Hard(PROCESS, "eps", (1, 1, 1), [ClassCondition("class", 3)]),
            guidance=CFG(2.0),
            cond={"class": 1},
        )


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "two"])
def test_bad_scales_are_refused(scale: object) -> None:
    with pytest.raises(UsageError, match="scale="):
        CFG(scale)  # type: ignore[arg-type]
