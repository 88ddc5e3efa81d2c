"""Classifier-free guidance of every kind of condition and of several, against Gaussians in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from support.told_gaussian import SHAPE, ToldGaussian, told
from trilemma.errors import UsageError
from trilemma.testing.word_encoder import WordEncoder
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP

PROCESS = DiscreteVP()
VARIANCE = 0.04
IMAGE = torch.tensor([[[0.6, -0.2], [0.1, 0.0]]])
VALUES: dict[str, Any] = {"class": "seven", "level": 0.8, "image": IMAGE, "text": "a cat", "style": "bold"}


def model(*names: str) -> ToldGaussian:
    known = told(WordEncoder())
    return ToldGaussian(PROCESS, [known[name] for name in names], VARIANCE)


def mean(network: ToldGaussian, cond: dict[str, Any]) -> Tensor:
    return network.mean(network.prepare(cond).take(torch.arange(1)), 1).expand(1, *SHAPE)


def landing(m: Tensor) -> Tensor:
    """The flow of N(m, s²) from x_T = 0 at t = 1."""
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = PROCESS.alpha(one), PROCESS.sigma(one)
    return m - (VARIANCE / (alpha**2 * VARIANCE + sigma**2)) ** 0.5 * alpha * m


def draw(network: ToldGaussian, guidance: str, cond: dict[str, Any], steps: int = 100) -> Tensor:
    latent = torch.zeros(1, *SHAPE, dtype=torch.float64)
    sampler = DDIM(grid="uniform")
    options = {"latent": latent, "sampler": sampler, "steps": steps, "dtype": torch.float64}
    return trilemma.sample(network, guidance=guidance, cond=cond, **options).samples


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_is_guided_to(name: str) -> None:
    """m̃ = m_∅ + s (m_c − m_∅)."""
    network, cond = model(name), {name: VALUES[name]}
    null = mean(network, {})
    expected = landing(null + 3 * (mean(network, cond) - null))
    assert torch.allclose(draw(network, "cfg:scale=3", cond), expected, atol=5e-4)


@pytest.mark.parametrize(
    ("guidance", "terms"),
    [
        ("cfg:scale=3", [(3, ("class", "level"))]),
        ("cfg:scale=3,drop=class", [(3, ("class",))]),
        ("cfg:scale=3,drop=[level]", [(3, ("level",))]),
        ("cfg:scale=3,drop=[class,level]", [(3, ("class", "level"))]),
        ("cfg:scale=3,drop=class+cfg:scale=0.5,drop=level", [(3, ("class",)), (0.5, ("level",))]),
        ("cfg:scale=2+cfg:scale=1.5,drop=level", [(2, ("class", "level")), (1.5, ("level",))]),
        ("cfg:scale=3,drop=class+interval:lo=0,hi=1", [(3, ("class",))]),
        ("apg:scale=3,eta=1,drop=class", [(3, ("class",))]),
    ],
)
def test_two_conditions_are_guided_to_by_scales_of_their_own(
    guidance: str, terms: list[tuple[float, tuple[str, ...]]]
) -> None:
    """m̃ = m + Σ_i (s_i − 1)(m − m_i), with m_i the mean without the conditions that term i drops."""
    network, cond = model("class", "level"), {"class": "seven", "level": 0.8}
    m = mean(network, cond)
    expected = m
    for scale, dropped in terms:
        expected = expected + (scale - 1) * (m - mean(network, {**cond, **dict.fromkeys(dropped)}))
    assert torch.allclose(draw(network, guidance, cond), landing(expected), atol=5e-4)


def test_a_condition_that_is_not_given_stays_null_in_both_branches() -> None:
    network = model("class", "level", "text")
    null = mean(network, {})
    expected = landing(null + 3 * (mean(network, {"text": "a cat"}) - null))
    assert torch.allclose(draw(network, "cfg:scale=3", {"text": "a cat", "level": None}), expected, atol=5e-4)


@pytest.mark.parametrize(
    ("guidance", "cond", "reason"),
    [
        (
            "cfg:drop=level",
            {"class": 0},
            "drop='level' is none of the conditions that are given; choose from class",
        ),
        ("cfg:drop=lvel", {"class": 0}, "drop='lvel' is none"),
        ("apg:drop=level", {"class": 0, "level": None}, "apg: drop='level' is none"),
        ("cfgpp:drop=level", {"level": None}, "cfgpp needs a condition to guide to"),
    ],
)
def test_what_is_not_given_cannot_be_dropped(guidance: str, cond: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        draw(model("class", "level"), guidance, cond, 2)
    assert "\n" not in str(caught.value)


def test_a_condition_without_a_null_is_kept_by_dropping_others() -> None:
    known = told(WordEncoder())
    hard = trilemma.ScalarCondition("level", -1, 1)

    class OneHard(ToldGaussian):
        def mean(self, cond: dict[str, Tensor], batch: int) -> Tensor:
            return super().mean({**cond, "level_given": torch.ones(batch)}, batch)

    network = OneHard(PROCESS, [known["class"], hard], VARIANCE)
    cond = {"class": 0, "level": 0.8}
    with pytest.raises(UsageError, match="cfg needs a null and condition 'level' has none"):
        draw(network, "cfg:scale=3", cond, 2)
    m, null = mean(network, cond), mean(network, {**cond, "class": None})
    expected = landing(null + 3 * (m - null))
    assert torch.allclose(draw(network, "cfg:scale=3,drop=class", cond), expected, atol=5e-4)
    with pytest.raises(UsageError, match="condition 'level' is missing"):
        draw(network, "cfg:scale=3", {"class": 0}, 2)


def test_the_default_is_written_as_ever() -> None:
    assert trilemma.lookup.describe("guidance", trilemma.guidance("cfg:scale=3")) == "cfg:scale=3.0"
    written = trilemma.lookup.describe("guidance", trilemma.guidance("cfg:drop=text"))
    assert written == "cfg:drop=('text',),scale=2.0"
    assert trilemma.guidance(written) == trilemma.guidance("cfg:drop=text")
