"""Attention from the packed projection, forward and backward: ours against PyTorch's fused attention.

    OMP_NUM_THREADS=2 python benchmarks/attention.py [--json]

Correctness against float64 comes first. Contenders are fed the same packed projection, [B, L, 3, H, D] (token) or
[B, 3, H, D, L] (map), and must leave the result as the next layer reads it, [B, L, H·D] or [B, H·D, L]. PyTorch's is
the better of SDPA on the views and SDPA on a permuted copy; backward, also the plain formula. They are run in turn, so
that a slow spell hits all of them; medians and the spread p20-p80 are given. A cell below 1 is printed like any other.

What `auto` chooses is what `trilemma calibrate`, or a record of the level, says: TRILEMMA_BACKEND=native measures ours
everywhere.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from trilemma import _C
from trilemma.ops import attention, explain

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}
CHANNELS, BATCH = 128, 4
Function = Callable[[], object]


def views(packed: Tensor, layout: str) -> tuple[Tensor, ...]:
    """q, k and v [B, H, L, D] of a packed projection."""
    return packed.permute(2, 0, 3, 1, 4).unbind() if layout == "token" else packed.transpose(-1, -2).unbind(1)


def copied(packed: Tensor, layout: str) -> tuple[Tensor, ...]:
    order = (2, 0, 3, 1, 4) if layout == "token" else (1, 0, 2, 4, 3)
    return packed.permute(order).contiguous().unbind()


def delivered(out: Tensor, layout: str) -> Tensor:
    """As the next layer reads it; free where the memory already lies so."""
    return out.transpose(1, 2).contiguous() if layout == "token" else out.transpose(2, 3).contiguous()


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v


def forward(packed: Tensor, layout: str) -> dict[str, Function]:
    q, k, v = views(packed, layout)
    return {
        "ours": lambda: delivered(attention(q, k, v), layout),
        "sdpa": lambda: delivered(sdpa(q, k, v), layout),
        "sdpa, copied": lambda: delivered(sdpa(*copied(packed, layout)), layout),
    }


def backward(packed: Tensor, layout: str) -> dict[str, Function]:
    """Gradients at q, k and v, the forward pass done before."""

    def gradient(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Function:
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        out = function(*inputs)
        like = views(packed, layout)[0]
        dout = torch.empty_like(out).copy_(like)
        return lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True)

    read, copy = views(packed, layout), copied(packed, layout)
    return {
        "ours": gradient(attention, read),
        "sdpa": gradient(sdpa, read),
        "sdpa, copied": gradient(sdpa, copy),
        "formula": gradient(plain, copy),
    }


def check(packed: Tensor, layout: str, dtype: str) -> None:
    inputs = [x.detach().requires_grad_() for x in views(packed[:1], layout)]  # one sample says as much
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = attention(*inputs), plain(*exact)
    dout = torch.randn_like(out)
    found = (out, *torch.autograd.grad(out, inputs, dout))
    wanted = (expected, *torch.autograd.grad(expected, exact, dout.double()))
    for x, y in zip(found, wanted, strict=True):
        error = ((x.double() - y).abs().max() / y.abs().max()).item()
        assert error <= TOLERANCE[dtype], f"{dtype} {tuple(packed.shape)} {layout}: an error of {error}"


def measure(functions: dict[str, Function], seconds: float) -> dict[str, list[float]]:
    """Microseconds of each call, the functions in turn."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["ours"]) < 3:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            samples[name].append(1e6 * (time.perf_counter() - start))
    return samples


def least_ratio(times: dict[str, float]) -> float:
    """How many times as long PyTorch's best way takes as ours."""
    return min(value for way, value in times.items() if way != "ours") / times["ours"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="per cell")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 32, 64, 128])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--layouts", nargs="+", choices=("token", "map"), default=["token", "map"])
    parser.add_argument(
        "--passes", nargs="+", choices=("forward", "backward"), default=["forward", "backward"]
    )
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--heads", type=int, help=f"{CHANNELS} channels' worth by default")
    parser.add_argument("--json", action="store_true", help="one JSON line a cell, raw samples included")
    options = parser.parse_args()
    where = {"isa": _C.cpu_isa(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if not options.json:
        print(f"{platform.machine()} {where['isa']}, {where['threads']} threads, torch {where['torch']}")
    for name, dtype, layout, depth, tokens in product(
        options.passes, options.dtypes, options.layouts, options.depths, options.tokens
    ):
        torch.manual_seed(0)
        heads = options.heads or max(1, CHANNELS // depth)
        shape = (tokens, 3, heads, depth) if layout == "token" else (3, heads, depth, tokens)
        packed = torch.randn(options.batch, *shape).to(DTYPES[dtype])
        check(packed, layout, dtype)
        with torch.set_grad_enabled(name == "backward"):
            functions = (forward if name == "forward" else backward)(packed, layout)
            samples = measure(functions, options.seconds)
        median = {way: statistics.median(values) for way, values in samples.items()}
        ratio = least_ratio(median)
        quick = {way: statistics.quantiles(values, n=5)[0] for way, values in samples.items()}
        backend = explain("attention", *views(packed, layout), None).backend
        what = {"pass": name, "dtype": dtype, "layout": layout, "B": options.batch, "H": heads, "L": tokens}
        if options.json:
            line = {
                **what,
                "D": depth,
                **where,
                "forward_backend": backend,
                "median_us": median,
                "ratio": ratio,
            }
            print(json.dumps({**line, "samples_us": samples}), flush=True)
            continue
        shape_text = f"{options.batch}x{heads}x{tokens}x{depth}"
        print(
            f"{name:8} {dtype:8} {layout:5} {shape_text}  {ratio:5.2f}x (p20 {least_ratio(quick):.2f}x)",
            end="",
        )
        for way, values in samples.items():
            p20, _, _, p80 = statistics.quantiles(values, n=5)
            print(f"   {way} {median[way]:.0f} ({p20:.0f}-{p80:.0f})", end="")
        print(" us" if backend == "native" else " us, forward not native", flush=True)


if __name__ == "__main__":
    main()
