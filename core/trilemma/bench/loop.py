"""Whole sampling loops of one network with the same weights: diffusers' pipeline against ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import trilemma
from trilemma.bench.kernels import machine
from trilemma.bench.timing import Times, ratio
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.fusion import fuse

SIZE = 32
EAGER = "eager"
PEER = "diffusers"

Contenders = Mapping[str, Callable[[], Tensor]]


def loop_record(n: int, steps: int, rounds: int) -> dict[str, Any]:
    """Times a forward pass and a whole loop, every contender once a round, in turn, and compares their results.

    The network is diffusers' `UNet2DModel` of 64, 128 and 128 channels, with attention at the middle level, and random
    weights; all loops start from the same noise.

    Raises:
        UsageError: where diffusers is missing.
    """
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise UsageError('this benchmark needs diffusers; pip install "trilemma[bench]"') from error
    plain, fused, half, fused_half = (
        _network(),
        _network(),
        _network(torch.bfloat16),
        _network(torch.bfloat16),
    )
    report = fuse(fused)
    fuse(fused_half)
    start = torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def forward(
        network: Any, dtype: torch.dtype = torch.float32, autocast: bool = False
    ) -> Callable[[], Tensor]:
        z, t = start.to(dtype), torch.tensor(500)

        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                sample: Tensor = network(z, t).sample
            return sample

        return run

    passes = {
        EAGER: forward(plain),
        "autocast bfloat16": forward(plain, autocast=True),
        "bfloat16": forward(half, torch.bfloat16),
        "fused": forward(fused),
        "fused, autocast bfloat16": forward(fused, autocast=True),
        "fused, bfloat16": forward(fused_half, torch.bfloat16),
    }
    loops = {
        PEER: _theirs(plain, start, steps),
        f"{PEER}, autocast bfloat16": _theirs(plain, start, steps, autocast=True),
        "trilemma": _ours(plain, start, steps),
        "trilemma, fused": _ours(fused, start, steps),
        "trilemma, fused, bfloat16": _ours(fused_half, start, steps),
    }
    with torch.inference_mode():
        return {
            "network": "UNet2DModel 64-128-128, attention at the middle level, 3×32×32",
            "n": n,
            "steps": steps,
            "forward": _rows(passes, 5 * rounds),
            "loop": _rows(loops, rounds),
            "fusion": str(report),
            **machine(torch.device("cpu")),
        }


def _network(dtype: torch.dtype = torch.float32) -> Any:
    from diffusers import UNet2DModel
    from diffusers.utils import logging

    # It warns of every change of dtype.
    logging.set_verbosity_error()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DModel(
            sample_size=SIZE,
            block_out_channels=(64, 128, 128),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )
    return network.eval().requires_grad_(False).to(dtype)


class _Adapted(Denoiser):
    """A network of diffusers as a denoiser: its times are table indices."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__(trilemma.process("vp:schedule=linear,T=1000"), "eps", (3, SIZE, SIZE), [])
        self.network = network

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        sample: Tensor = self.network(z, torch.round(1000 * t) - 1).sample
        return sample


def _ours(network: torch.nn.Module, start: Tensor, steps: int) -> Callable[[], Tensor]:
    denoiser = _Adapted(network)

    def run() -> Tensor:
        drawn = trilemma.sample(
            denoiser, len(start), sampler="ddim", steps=steps, latent=start, dtype=torch.float32
        )
        return drawn.samples

    return run


def _theirs(network: Any, start: Tensor, steps: int, autocast: bool = False) -> Callable[[], Tensor]:
    """Does what `DDIMPipeline.__call__` does after it has drawn its noise, but returns the state, not pictures."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)

    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        state = start
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for t in scheduler.timesteps:
                state = scheduler.step(network(state, t).sample, t, state, eta=0.0).prev_sample
        return state

    return run


def _rows(contenders: Contenders, rounds: int) -> list[dict[str, Any]]:
    """A row a contender; ratios and differences (relative to the largest value) are to the first."""
    first, given = {}, {}
    for name, run in contenders.items():
        begin = time.perf_counter()
        given[name] = run()
        first[name] = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    times = {name: Times(tuple(values)) for name, values in seconds.items()}
    peer = next(iter(contenders))
    return [
        {
            "name": name,
            "seconds": times[name].median,
            "rounds": seconds[name],
            "first": first[name],
            "ratio": ratio(times[peer], times[name]),
            "difference": float((given[name].float() - given[peer]).abs().max() / given[peer].abs().max()),
        }
        for name in contenders
    ]
