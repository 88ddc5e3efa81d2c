"""The CUDA kernels as a share of what a copy reaches, against eager PyTorch and torch.compile.

    python benchmarks/cuda_kernels.py [--out FILE] [--megabytes 64]

Correctness comes first, and a fallback is an error. Warm: the working set as the last call left it; cold: after a
write that flushes the second cache. Medians and the spread p20-p80 of CUDA events; bytes are the least that the
operator must move; the copy is timed in turn with it, at the same number of bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.ops import layout

REPEATS = 50


@dataclass(frozen=True)
class Case:
    """One operator at one size: ways to run it by name, native first, and the bytes that it must move."""

    name: str
    ways: dict[str, Callable[[], Any]]
    moved: int
    agrees: Callable[[], bool]


def cases(megabytes: int, dtype: torch.dtype) -> Iterator[Case]:
    width = torch.empty((), dtype=dtype).element_size()
    batch = max(1, megabytes * 2**20 // (width * 3 * 256 * 256))
    yield from (step(batch, dtype, noisy) for noisy in (False, True))
    yield noising(batch, dtype)
    for last in (False, True):
        yield normalisation(max(1, megabytes * 2**20 // (width * 128 * 64 * 64)), dtype, last)


def step(batch: int, dtype: torch.dtype, noisy: bool) -> Case:
    """A guided, clipped step: reads z and two branches, writes two replicas."""
    z = torch.randn(batch, 3, 256, 256, device="cuda").to(dtype)
    output = torch.randn(2 * batch, 3, 256, 256, device="cuda").to(dtype)
    out = torch.empty_like(output)
    table = torch.zeros(1, layout.WIDTH, dtype=torch.float64)
    table[0, layout.W] = torch.tensor([2.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    table[0, layout.P], table[0, layout.Q], table[0, layout.S] = 1.25, -0.75, 1.0
    table[0, layout.A], table[0, layout.B.start], table[0, layout.CLIP] = 0.9, 0.1, 1.0
    table[0, layout.C] = 0.2 if noisy else 0.0
    indices = torch.arange(batch, device="cuda")

    def native() -> None:
        torch.ops.trilemma.linear_step(
            *(out, z, z, output, table, 0, None, -1, [], 0, indices, None, None, []), backend="native"
        )

    def eager() -> Tensor:
        cond, null = output.chunk(2)
        x0 = (1.25 * z - 0.75 * (null + 2.0 * (cond - null))).clamp(-1, 1)
        state = 0.9 * z + 0.1 * x0
        if noisy:
            state = state + 0.2 * torch.randn_like(z)
        return torch.cat([state, state])

    def agrees() -> bool:
        native()
        expected = torch.empty_like(out)
        torch.ops.trilemma.linear_step_reference(
            *(expected, z, z, output, table, 0, None, -1, [], 0, indices, None, None, [])
        )
        return torch.allclose(out.float(), expected.float(), rtol=2.0**-7, atol=2.0**-10)

    name = f"linear_step {'noisy' if noisy else 'plain'}"
    return Case(name, {"native": native, **_eagerly(eager)}, 5 * z.nbytes, agrees)


def noising(batch: int, dtype: torch.dtype) -> Case:
    """Reads x0, writes z and the target; the noise is made inside."""
    x0 = torch.randn(batch, 3, 256, 256, device="cuda").to(dtype)
    coefficients = torch.rand(batch, 4, device="cuda", dtype=torch.float64)
    indices = torch.arange(batch, device="cuda")
    arguments = (x0, coefficients, 0, 0, indices, None)

    def native() -> Any:
        return torch.ops.trilemma.perturb(*arguments, backend="native")

    def eager() -> tuple[Tensor, Tensor]:
        alpha, sigma, a, b = coefficients.to(dtype).view(-1, 4, 1, 1, 1).unbind(1)
        noise = torch.randn_like(x0)
        return alpha * x0 + sigma * noise, a * x0 + b * noise

    def agrees() -> bool:
        expected = torch.ops.trilemma.perturb_reference(*arguments)
        pairs = zip(native(), expected, strict=True)
        return all(torch.allclose(x.float(), y.float(), rtol=2.0**-7, atol=2.0**-10) for x, y in pairs)

    return Case("perturb", {"native": native, **_eagerly(eager)}, 3 * x0.nbytes, agrees)


def normalisation(batch: int, dtype: torch.dtype, last: bool) -> Case:
    """GroupNorm, its modulation and SiLU: reads x twice where a group has several blocks, writes y."""
    laid = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(batch, 128, 64, 64, device="cuda").to(dtype).contiguous(memory_format=laid)
    weight, bias = (torch.randn(128, device="cuda", dtype=dtype) for _ in range(2))
    scale, shift = torch.randn(batch, 256, device="cuda", dtype=dtype).chunk(2, 1)

    def native() -> Any:
        return torch.ops.trilemma.group_norm_act(
            x, 32, weight, bias, scale, shift, None, 1e-5, True, backend="native"
        )[0]

    def eager() -> Tensor:
        y = torch.nn.functional.group_norm(x, 32, weight, bias)
        return torch.nn.functional.silu(y * (1 + scale[..., None, None]) + shift[..., None, None])

    def agrees() -> bool:
        return torch.allclose(native().float(), eager().float(), rtol=2.0**-5, atol=2.0**-4)

    name = f"group_norm_act {'channels-last' if last else 'channels-first'}"
    return Case(name, {"native": native, **_eagerly(eager)}, 2 * x.nbytes, agrees)


def _eagerly(function: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    return {"eager": function, "compiled": torch.compile(function)}


def milliseconds(run: Callable[[], Any], flush: Tensor | None) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if flush is not None:
        flush.zero_()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def measure(case: Case, flush: Tensor | None) -> dict[str, Any]:
    """Medians and spreads of each way, and each way's share of the copy's bandwidth."""
    source = torch.empty(case.moved // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    ways = {"copy": lambda: target.copy_(source), **case.ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        for _ in range(3):
            run()
    for _ in range(REPEATS):
        for name, run in ways.items():
            times[name].append(milliseconds(run, flush))
    copy = statistics.median(times["copy"])
    result = {}
    for name, taken in times.items():
        cuts = statistics.quantiles(taken, n=10)
        result[name] = {
            "median_ms": statistics.median(taken),
            "p20_ms": cuts[1],
            "p80_ms": cuts[7],
            "share_of_copy": copy / statistics.median(taken),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--megabytes", type=int, default=64, help="of the state")
    options = parser.parse_args()
    flush = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    rows = []
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            for case in cases(options.megabytes, dtype):
                if not case.agrees():
                    raise SystemExit(f"{case.name} in {dtype} is wrong")
                for state, flushed in (("warm", None), ("cold", flush)):
                    row = {"case": case.name, "dtype": str(dtype), "cache": state, **measure(case, flushed)}
                    rows.append(row)
                    print(json.dumps(row))
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
