"""The data set: its law on the grid, its entropy, its splits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma_plugins.points.dataset import Mixture2D

STEP = 2 / 255


def test_points_are_bytes_around_their_modes() -> None:
    data = trilemma.dataset("mixture2d:modes=5,radius=0.5,deviation=0.05,n=5000")
    assert data.images.shape == (5000, 2, 1, 1)
    assert (data.shape, data.classes) == ((2, 1, 1), tuple("01234"))
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert data.labels.bincount().tolist() == [1000] * 5
    x, values = data.batch(torch.arange(5000), torch.float64)
    for mode in range(5):
        angle = 2 * math.pi * mode / 5
        centre = torch.tensor([0.5 * math.cos(angle), 0.5 * math.sin(angle)], dtype=torch.float64)
        of_mode = x[values["class"] == mode].flatten(1)
        assert (of_mode.mean(0) - centre).abs().max() < 4 * 0.05 / math.sqrt(1000)
        assert of_mode.std(0).tolist() == pytest.approx([0.05, 0.05], rel=4 / math.sqrt(2000))


def test_a_grid_has_rows_and_columns() -> None:
    data = trilemma.dataset("mixture2d:layout=grid,modes=9,radius=0.8,deviation=0.02,n=900")
    places = [[x, y] for x in (-0.8, 0.0, 0.8) for y in (-0.8, 0.0, 0.8)]
    assert data.centres.tolist() == places
    x, values = data.batch(torch.arange(900), torch.float64)
    for mode, place in enumerate(places):
        of_mode = x[values["class"] == mode].flatten(1)
        assert (of_mode.mean(0) - torch.tensor(place)).abs().max() < 4 * 0.02 / 10 + STEP / 2
    assert Mixture2D(layout="grid", modes=1, n=1).centres.tolist() == [[0.0, 0.0]]


def test_shares_are_those_of_the_modes() -> None:
    """exp(−k²/2) of the points of a normal lie beyond k deviations."""
    data = Mixture2D(modes=9, layout="grid", radius=0.9, deviation=0.02, n=1)
    mode = torch.arange(18_000) % 9
    noise = torch.randn(18_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = (data.centres[mode] + 0.02 * noise).view(-1, 2, 1, 1)
    for deviations in (1.0, 2.0, 3.0):
        share = (1 - math.exp(-(deviations**2) / 2)) / 9
        assert data.shares(points, deviations).tolist() == pytest.approx(
            [share] * 9, abs=4 * math.sqrt(share / 18_000)
        )
    lost = data.shares(points[mode != 4])
    assert lost[4] == 0
    assert float(lost.sum()) == pytest.approx(1 - math.exp(-4.5), abs=4e-3)
    assert not bool(data.shares(torch.full((5, 2, 1, 1), 0.45)).any())


def test_draws_are_those_of_split_and_seed() -> None:
    first, again, test, other = (Mixture2D(**given) for given in ({}, {}, {"split": "test"}, {"seed": 1}))
    assert torch.equal(first.images, again.images)
    for else_ in (test, other):
        same = (first.images == else_.images).flatten(1).all(1).float().mean()
        assert same < 0.02  # two draws of a mode meet with probability Δ²/4πs² = 0.003


@pytest.mark.parametrize(
    "options", [{"modes": 1, "radius": 0.0}, {"modes": 4}, {"modes": 9, "layout": "grid"}, {}], ids=str
)
def test_entropy_of_modes_apart_is_that_of_normals(options: dict[str, Any]) -> None:
    """½ log₂ M for the mode and log₂ √(2πe (s² + Δ²/12)) − log₂ Δ for each coordinate, by Sheppard's correction."""
    data = Mixture2D(deviation=0.04, n=8, **options)
    of_one = math.log2(math.sqrt(2 * math.pi * math.e * (0.04**2 + STEP**2 / 12)) / STEP)
    assert data.entropy == pytest.approx(of_one + math.log2(len(data.classes)) / 2, abs=1e-5)


def test_a_point_between_two_levels_has_one_bit() -> None:
    """y = 0 lies between levels 127 and 128, x = 0.6 inside level 204: one bit in two dimensions."""
    assert Mixture2D(modes=1, deviation=1e-6, n=1).entropy == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"radius": 0.95, "deviation": 0.1}], ids=["inside", "clamped"])
def test_points_follow_the_law(options: dict[str, float]) -> None:
    """χ² of counts in blocks of 16 × 16 levels, where those at the edge hold what was clamped."""
    data = Mixture2D(n=80_000, **options)
    assert float(data.law.sum()) == pytest.approx(1, abs=1e-12)
    u, v = data.images.flatten(1).long().unbind(1)
    counts = torch.zeros(256, 256, dtype=torch.float64)
    counts.index_put_((u, v), torch.ones(len(u), dtype=torch.float64), accumulate=True)
    seen, expected = (
        table.view(16, 16, 16, 16).sum((1, 3)).flatten() for table in (counts, 80_000 * data.law)
    )
    frequent = expected > 10
    assert seen[~frequent].sum() < 1.5 * expected[~frequent].sum() + 30
    chi_square = ((seen - expected).square() / expected)[frequent].sum()
    count = int(frequent.sum())
    assert chi_square < count + 5 * math.sqrt(2 * count)
    at_the_edge = 80_000 * float(data.law[255].sum())
    assert int((u == 255).sum()) == pytest.approx(at_the_edge, abs=5 * math.sqrt(at_the_edge) + 1)


@pytest.mark.parametrize("split", ["train", "test"])
def test_surprisals_average_to_the_entropy(split: str) -> None:
    data = Mixture2D(split=split)
    error = float(data.surprisals.std()) / math.sqrt(len(data))
    assert float(data.surprisals.mean()) == pytest.approx(data.entropy, abs=4 * error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("split=all", "expected train or test"),
        ("modes=0", "from 1 to"),
        ("n=0", "from 1 to"),
        ("deviation=0.0", "deviation > 0"),
        ("radius=-1.0", "radius ≥ 0"),
        ("layout=star", "'ring' or 'grid'"),
        ("layout=grid,modes=8", "such as 4"),
    ],
)
def test_what_it_refuses(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        trilemma.dataset(f"mixture2d:{options}")
    assert "\n" not in str(caught.value)
