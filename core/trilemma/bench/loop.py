"""Whole sampling loops of one network with the same weights: diffusers' pipeline against ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import trilemma
from trilemma.bench.kernels import machine
from trilemma.bench.timing import Times, ratio
from trilemma.denoiser import Denoiser
from trilemma.errors import UsageError
from trilemma.fusion import fuse

SIZE = 32
PEER = "diffusers' DDIMPipeline"


def loop_record(n: int, steps: int, rounds: int) -> dict[str, Any]:
    """Times every contender once a round, in turn, and compares what they draw.

    The network is diffusers' `UNet2DModel` of 64, 128 and 128 channels with random weights; all contenders start from
    the same noise.

    Raises:
        UsageError: where diffusers is missing.
    """
    try:
        from diffusers import DDIMPipeline, DDIMScheduler
    except ImportError as error:
        raise UsageError('this benchmark needs diffusers; pip install "trilemma[bench]"') from error
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    pipeline = DDIMPipeline(_network(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    start = torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def theirs(dtype: torch.dtype | None) -> Callable[[int], Tensor]:
        def run(count: int) -> Tensor:
            pipeline.scheduler.set_timesteps(count)
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                return _their_loop(pipeline, start, count)

        return run

    fused, half = _network(), _network().to(torch.bfloat16)
    report = fuse(fused)
    fuse(half)
    contenders: dict[str, Callable[[int], Tensor]] = {
        PEER: theirs(None),
        f"{PEER}, autocast bfloat16": theirs(torch.bfloat16),
        "trilemma": _ours(_network(), start),
        "trilemma, fused": _ours(fused, start),
        "trilemma, fused, bfloat16": _ours(half, start),
    }
    with torch.inference_mode():
        return {
            "network": "UNet2DModel 64-128-128, 3×32×32",
            "n": n,
            "steps": steps,
            "rows": _rows(contenders, steps, rounds),
            "fusion": str(report),
            **machine(torch.device("cpu")),
        }


def _network() -> Any:
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DModel(
            sample_size=SIZE,
            block_out_channels=(64, 128, 128),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )
    return network.eval().requires_grad_(False)


class _Adapted(Denoiser):
    """A network of diffusers as a denoiser: its times are table indices."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__(trilemma.process("vp:schedule=linear,T=1000"), "eps", (3, SIZE, SIZE), [])
        self.network = network

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        sample: Tensor = self.network(z, torch.round(1000 * t) - 1).sample
        return sample


def _ours(network: torch.nn.Module, start: Tensor) -> Callable[[int], Tensor]:
    denoiser = _Adapted(network)

    def run(count: int) -> Tensor:
        drawn = trilemma.sample(
            denoiser,
            len(start),
            sampler="ddim",
            steps=count,
            latent=start,
            dtype=torch.float32,
        )
        return drawn.samples

    return run


def _their_loop(pipeline: Any, start: Tensor, count: int) -> Tensor:
    """What `DDIMPipeline.__call__` does after it has drawn its noise, to the state instead of to pictures."""
    state = start
    for t in pipeline.scheduler.timesteps:
        output = pipeline.unet(state, t).sample
        state = pipeline.scheduler.step(output, t, state, eta=0.0).prev_sample
    return state


def _rows(contenders: Mapping[str, Callable[[int], Tensor]], steps: int, rounds: int) -> list[dict[str, Any]]:
    first, drawn = {}, {}
    for name, run in contenders.items():
        begin = time.perf_counter()
        drawn[name] = run(steps)
        first[name] = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run(steps)
            seconds[name].append(time.perf_counter() - begin)
    times = {name: Times(tuple(values)) for name, values in seconds.items()}
    return [
        {
            "name": name,
            "seconds": times[name].median,
            "rounds": seconds[name],
            "first_image": first[name],
            "ratio": ratio(times[PEER], times[name]),
            "difference": float(np.abs((drawn[name].float() - drawn[PEER]).numpy()).max()),
        }
        for name in contenders
    ]
