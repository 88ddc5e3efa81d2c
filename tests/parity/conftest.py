"""The peers, an exact denoiser of mixture data, and a plan run on it step by step in float64.

A peer that is not installed is a skip; with TRILEMMA_PEERS=1, as in CI, it is a failure.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.testing.interpreter import interpret

MEANS = torch.tensor([-1.0, 0.2, 1.1], dtype=torch.float64)
VARIANCES = torch.tensor([0.04, 0.12, 0.06], dtype=torch.float64)


def installed(package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        return
    if os.environ.get("TRILEMMA_PEERS") == "1":
        pytest.fail(f"{package} is not installed; `make test` installs the peers")
    pytest.skip(f"{package} is not installed")


@pytest.fixture
def diffusers() -> ModuleType:
    installed("diffusers")
    return importlib.import_module("diffusers")


@pytest.fixture
def k_diffusion(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """k_diffusion.sampling, whose package imports far more than it needs."""
    installed("k_diffusion")
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None
    package = ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations or ())
    monkeypatch.setitem(sys.modules, "k_diffusion", package)
    for name in ("k_diffusion.utils", "torchdiffeq", "torchsde"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    sys.modules["k_diffusion.utils"].append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    package.utils = sys.modules["k_diffusion.utils"]
    monkeypatch.delitem(sys.modules, "k_diffusion.sampling", raising=False)
    yield importlib.import_module("k_diffusion.sampling")
    sys.modules.pop("k_diffusion.sampling", None)


@pytest.fixture
def azula(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """azula.sample; its networks' einops is not needed."""
    installed("azula")
    if importlib.util.find_spec("einops") is None:
        for name in ("einops", "einops.layers", "einops.layers.torch"):
            monkeypatch.setitem(sys.modules, name, MagicMock())
    yield importlib.import_module("azula.sample")
    for name in [name for name in sys.modules if name.split(".")[0] == "azula"]:
        del sys.modules[name]


class ByNoiseLevel(Process):
    """α = 1, σ = 10 t."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return torch.ones_like(t)[..., None], (10 * t).square()[..., None, None]


class Pythagorean(Process):
    """α = 1/√(1 + ρ²), σ = ρ α with ρ = 10 t: the state that diffusers' exponential schedulers keep for a level ρ."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rho = 10 * t.double()
        return (1 + rho.square()).rsqrt()[..., None], (rho.square() / (1 + rho.square()))[..., None, None]


def mixture_x0(z: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x₀ | z] of a mixture of three equally likely Gaussians."""
    variance = alpha**2 * VARIANCES + sigma**2
    away = z.double()[..., None] - alpha * MEANS
    mass = (-away.square() / (2 * variance) - variance.log() / 2).softmax(-1)
    return (mass * (MEANS + alpha * VARIANCES / variance * away)).sum(-1)


def follow(tableau: Tableau, process: Process, z: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
    """The state after the last row; `noise` holds one tensor a row with noise."""
    fresh = iter(noise)

    def predict(r: int, row: Row, z: Tensor) -> Tensor:
        alpha, sigma = (
            float(level) for level in process.alpha_sigma(torch.tensor(row.t, dtype=torch.float64))
        )
        x0 = mixture_x0(z, alpha, sigma)
        return x0 if tableau.parameterization == "x0" else (z - alpha * x0) / sigma

    return interpret(tableau, predict, z, lambda r: next(fresh))[-1]


@pytest.fixture
def process() -> Process:
    return ByNoiseLevel()


@pytest.fixture
def pythagorean() -> Process:
    return Pythagorean()


@pytest.fixture
def sigmas() -> Tensor:
    """Noise levels of eight steps that end at 0, on no particular grid."""
    return torch.tensor([9.0, 5.5, 4.0, 2.2, 1.1, 0.7, 0.35, 0.1, 0.0], dtype=torch.float64)


@pytest.fixture
def start() -> Tensor:
    return 9 * torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def fresh() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(16, dtype=torch.float64, generator=generator) for _ in range(8)]


@pytest.fixture
def exact_x0() -> Callable[..., Tensor]:
    return mixture_x0


@pytest.fixture
def run_plan() -> Callable[..., Tensor]:
    return follow
