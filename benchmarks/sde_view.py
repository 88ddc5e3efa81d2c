"""Critically damped Langevin diffusion beside VP on a mixture of Gaussians, noising and denoising, as a picture.

python benchmarks/sde_view.py [--out docs/images/cld-vp.png]

Columns: x under VP, x under CLD, v under CLD. Above the way up, its paths drawn by exact transitions; below the way
down by the exact score, VP by euler-maruyama and CLD by sscs. The shade is the exact marginal density at every time.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor

mpl.use("agg")
from matplotlib import pyplot as plt

from trilemma import lookup, sample
from trilemma.interfaces.process import Process
from trilemma.testing.mixture import GaussianMixtureDenoiser

MEANS, VARIANCES, WEIGHTS = (-1.5, 0.3, 1.4), (0.02, 0.03, 0.02), (0.35, 0.25, 0.4)
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
HEIGHTS = 240


def model_of(process: Process) -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(process, MEANS, VARIANCES, WEIGHTS)


def density(model: GaussianMixtureDenoiser, t: Tensor, component: int, heights: Tensor) -> Tensor:
    """p(z_component) [heights, times] at times t > 0: Σ_c w_c N(m_c μ, s_c² μ² + Σ)."""
    mean, cov = model.process.moments(t)
    centre = model.means.view(-1, 1) * mean[:, component]
    variance = model.variances.view(-1, 1) * mean[:, component].square() + cov[:, component, component]
    away = heights.view(-1, 1, 1) - centre
    bells = (-away.square() / (2 * variance)).exp() / (2 * math.pi * variance).sqrt()
    return (model.weights.view(-1, 1) * bells).sum(1)


def noising(model: GaussianMixtureDenoiser, t: Tensor, count: int, seed: int) -> Tensor:
    """Paths [times, count, K] from the data on times that rise from 0, by z_t = Ψ z_s + √Q ξ."""
    process, generator = model.process, torch.Generator().manual_seed(seed)
    K = process.components
    state = torch.zeros(count, K, dtype=torch.float64)
    state[:, 0] = model.draw(count, generator).flatten()
    zero = torch.zeros((), dtype=torch.float64)
    if K > 1:  # what stands at the data beside them
        spread = process.moments(zero)[1].diagonal().sqrt()
        state += spread * torch.randn(count, K, dtype=torch.float64, generator=generator)
    psi, Q = process.transition(t[:-1], t[1:])
    path, factor = [state], torch.linalg.cholesky(Q)
    for flow, scale in zip(psi, factor, strict=True):
        noise = torch.randn(count, K, dtype=torch.float64, generator=generator)
        state = state @ flow.mT + noise @ scale.mT
        path.append(state)
    return torch.stack(path)


def denoising(
    model: GaussianMixtureDenoiser, sampler: str, steps: int, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Times and paths [times, count, K] of the engine's own sampler."""
    drawn = sample(
        model, count, sampler=sampler, steps=steps, seed=seed, trajectory=True, dtype=torch.float64
    )
    assert drawn.trajectory is not None
    assert drawn.times is not None
    return torch.tensor(drawn.times), drawn.trajectory.flatten(2)


def panel(axes: plt.Axes, model: GaussianMixtureDenoiser, component: int, t: Tensor, path: Tensor) -> None:
    """Density, and the paths of one component over it."""
    reach = 2.6 if component == 0 else 1.7
    heights = torch.linspace(-reach, reach, HEIGHTS, dtype=torch.float64)
    times = torch.linspace(0.004, 1, HEIGHTS, dtype=torch.float64)
    shade = density(model, times, component, heights)
    shade = shade / shade.amax(0)  # in every column on its own, as the peaks at the data outshine all others
    axes.pcolormesh(times, heights, shade.sqrt(), cmap="Greys", vmin=0, vmax=1.6, rasterized=True)
    for line, color in zip(path[..., component].mT, COLORS, strict=False):
        axes.plot(t, line, color=color, linewidth=1.0)
    axes.set_ylim(-reach, reach)
    axes.set_xlim(0, 1)


def draw(out: Path, steps: int) -> None:
    vp = lookup.build("process", "vp-continuous")[0]
    cld = lookup.build("process", "cld")[0]
    count = len(COLORS)
    rising = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    figure, grid = plt.subplots(2, 3, figsize=(15, 8.4), layout="constrained")
    columns = (
        ("VP: position x", vp, 0, "euler-maruyama"),
        ("CLD: position x", cld, 0, "sscs:last=denoise"),
        ("CLD: velocity v", cld, 1, "sscs:last=denoise"),
    )
    for (title, process, component, sampler), (above, below) in zip(columns, grid.T, strict=True):
        model = model_of(process)
        panel(above, model, component, rising, noising(model, rising, count, seed=1))
        t, path = denoising(model, sampler, steps, count, seed=2)
        panel(below, model, component, t, path)
        below.invert_xaxis()  # read from left to right: from noise to data
        name = sampler.partition(":")[0]
        above.set_title(f"{title}, noising →", fontsize=15)
        below.set_title(f"{title}, denoising →  ({name})", fontsize=15)
        for axes in (above, below):
            axes.set_ylabel("xv"[component], fontsize=14, rotation=0)
            axes.set_xlabel("time t", fontsize=13)
            axes.tick_params(labelsize=12)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/cld-vp.png"))
    parser.add_argument("--steps", type=int, default=500, help="of every path")
    options = parser.parse_args()
    draw(options.out, options.steps)
    print(options.out)


if __name__ == "__main__":
    main()
