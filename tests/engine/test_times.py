"""The time that a network is told is the time that its answer is read at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.sampler import Sampler
from trilemma.testing.execution import run_plan
from trilemma.testing.scalar import MIXTURE
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP
from trilemma_plugins.points.mlp import MLP
from trilemma_plugins.solvers.heun import Heun
from trilemma_plugins.unet.blocks import TimeEmbedding

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


@pytest.mark.parametrize("sampler", [DDIM(grid="lambda"), DDIM(), Heun()], ids=str)
def test_a_sample_in_float64_is_that_of_the_plan(sampler: Sampler) -> None:
    """Against the plan read literally, at times that are not rounded; λ is steep where the cosine schedule ends."""
    process = ContinuousVP("cosine")
    starts = [-1.2, 0.1, 0.9]
    latent = torch.tensor(starts, dtype=torch.float64).view(-1, 1, 1, 1)
    tableau = sampler.plan(process, sampler.times(process, 12))
    expected = torch.tensor([run_plan(tableau, process, MIXTURE, z) for z in starts], dtype=torch.float64)
    drawn = trilemma.sample(MIXTURE.denoiser(process), latent=latent, sampler=sampler, steps=12, **DOUBLE)
    assert float((drawn.samples.flatten() - expected).abs().max()) < 1e-10 * float(
        expected.abs().max().clamp_min(1)
    )


class Listening(Denoiser):
    """Keeps the times it is told, with parameters of a dtype."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__(ContinuousVP(), "eps", (1, 2, 2))
        if dtype is not None:
            self.gain = torch.nn.Parameter(torch.ones((), dtype=dtype), requires_grad=False)
        self.told: list[Tensor] = []

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        self.told.append(t.clone())
        return z * 0.1


@pytest.mark.parametrize("sampler", ["ddim", "rk:tolerance=0.1"])
@pytest.mark.parametrize(
    ("network", "state", "told"),
    [
        (None, torch.float64, torch.float64),
        (torch.float64, torch.float64, torch.float64),
        (torch.float32, torch.float64, torch.float32),
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
    ],
)
def test_times_reach_a_network_in_its_dtype_and_never_below_float32(
    network: torch.dtype | None, state: torch.dtype, told: torch.dtype, sampler: str
) -> None:
    model = Listening(network)
    trilemma.sample(model, sampler=sampler, steps=3, dtype=state)
    assert {t.dtype for t in model.told} == {told}
    if sampler == "ddim":
        exact = torch.tensor([1.0, 2 / 3, 1 / 3], dtype=torch.float64).to(told)
        assert torch.equal(torch.cat(model.told), exact)


@pytest.mark.parametrize("embedding", [TimeEmbedding(8, 8), MLP(ContinuousVP()).time_embedding], ids=str)
def test_an_embedding_in_float64_does_not_round_the_time(embedding: torch.nn.Module) -> None:
    """Times closer than float32 can tell apart."""
    t = torch.tensor([0.3, 0.3 + 1e-9, 0.3 + 2e-9], dtype=torch.float64)
    with torch.no_grad():
        first, middle, last = embedding.double()(t)
    assert not torch.equal(first, middle)
    assert torch.allclose(last - middle, middle - first, rtol=1e-3, atol=1e-14)
