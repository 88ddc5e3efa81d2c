"""`linear_step`: a clipped DDIM step with classifier-free guidance that writes both halves of the next input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from trilemma.bench.cell import Cell, Work, compiled
from trilemma.ops import layout, linear_step

SHAPES = [
    (16, 3, 32, 32),
    (64, 1, 28, 28),
    (16, 4, 64, 64),
    (64, 3, 64, 64),
    (8, 3, 256, 256),
    (8, 3, 512, 512),
]
SCALE, CLIP = 2.0, 1.0
# Indices of diffusers' default table of 1000 steps.
T, S = 500, 480
EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}


def linear_step_cells() -> Iterator[Cell]:
    for dtype in EPSILON:
        for shape in SHAPES:
            yield Cell(
                "linear_step", "×".join(map(str, shape)), dtype, partial(_work, shape, dtype), "DDIM + CFG"
            )


def _work(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Work:
    batch = shape[0]
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, dtype)

    z, output = normal(*shape), normal(2 * batch, *shape[1:])
    out = torch.empty_like(output)
    alpha_t, sigma_t, alpha_s, sigma_s = _scales()
    a = sigma_s / sigma_t
    b, p, q = alpha_s - a * alpha_t, 1 / alpha_t, -sigma_t / alpha_t
    table = torch.zeros(1, layout.WIDTH, dtype=torch.float64)
    table[0, layout.A], table[0, layout.B.start], table[0, layout.P], table[0, layout.Q] = a, b, p, q
    table[0, layout.S], table[0, layout.CLIP] = 1.0, CLIP
    table[0, layout.W][:2] = torch.tensor([SCALE, 1 - SCALE], dtype=torch.float64)

    def eager() -> Tensor:
        cond, null = output.chunk(2)
        x0 = (p * z + q * (null + SCALE * (cond - null))).clamp(-CLIP, CLIP)
        state = a * z + b * x0
        return torch.cat([state, state])

    x0, pair, target = torch.empty_like(z), output.unflatten(0, (2, batch)), torch.empty_like(output)

    def in_place() -> None:
        torch.lerp(pair[1], pair[0], SCALE, out=x0)
        x0.mul_(q).add_(z, alpha=p).clamp_(-CLIP, CLIP)
        state = target[:batch]
        torch.mul(z, a, out=state)
        state.add_(x0, alpha=b)
        target[batch:].copy_(state)

    def error(_: None) -> float:
        cond, null = output.double().chunk(2)
        mixed = p * z.double() + q * (SCALE * cond + (1 - SCALE) * null)
        state = a * z.double() + b * mixed.clamp(-CLIP, CLIP)
        expected = torch.cat([state, state])
        tolerance = 32 * 2.0**-23 * (1 + abs(a) + abs(b)) * 8 + EPSILON[dtype] * expected.abs()
        return float(((out.double() - expected).abs() / tolerance).max())

    peers: dict[str, Callable[[], object]] = {
        "torch.compile": compiled(eager),
        "eager, in place": in_place,
        "eager": eager,
    }
    if find_spec("diffusers"):
        peers["diffusers"] = _diffusers(z, output)
    least = 5 * z.numel() * z.element_size()
    return Work(linear_step, (out, z, z, output, table, 0), {}, peers, error, least)


def _scales() -> tuple[float, float, float, float]:
    """α and σ at T and S of the linear schedule from 1e-4 to 0.02."""
    log = torch.log1p(-torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumsum(0)
    bars = log.exp()
    pairs = [(float(bars[i].sqrt()), float((1 - bars[i]).sqrt())) for i in (T, S)]
    return (*pairs[0], *pairs[1])


def _diffusers(z: Tensor, output: Tensor) -> Callable[[], object]:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=True, steps_offset=0)
    scheduler.set_timesteps(1000 // (T - S))

    def step() -> Tensor:
        cond, null = output.chunk(2)
        state = scheduler.step(null + SCALE * (cond - null), T, z).prev_sample
        return torch.cat([state] * 2)

    return step
