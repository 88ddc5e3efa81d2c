"""The picture of both equations: its densities and its paths are those of the processes, and it is drawn."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from trilemma import lookup

VIEW = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "sde_view.py"))


@pytest.mark.parametrize(("spec", "component"), [("vp-continuous", 0), ("cld", 0), ("cld", 1)])
def test_densities_are_those_of_the_paths(spec, component):
    model = VIEW["model_of"](lookup.process(spec))
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    heights = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = VIEW["density"](model, times[1:], component, heights)
    width = heights[1] - heights[0]
    torch.testing.assert_close(density.sum(0) * width, torch.ones(5, dtype=torch.float64))
    paths = VIEW["noising"](model, times, 20_000, seed=0)[1:, :, component]
    variance = (density * heights.square().unsqueeze(1)).sum(0) * width
    variance -= ((density * heights.unsqueeze(1)).sum(0) * width).square()
    torch.testing.assert_close(paths.var(1), variance, rtol=0.05, atol=0)


def test_it_is_drawn(tmp_path):
    VIEW["draw"](tmp_path / "view.png", 6)
    assert (tmp_path / "view.png").read_bytes()[:4] == b"\x89PNG"
