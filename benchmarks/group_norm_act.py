"""GroupNorm + SiLU, forward and backward: the native kernels against eager PyTorch and torch.compile.

    OMP_NUM_THREADS=2 python benchmarks/group_norm_act.py [--json] [--only 8x128x64x64] [--dtype bfloat16] [--adagn]

Correctness against float64 comes first, and a run on the reference is an error. The contenders are run in turn, so that
a slow spell hits all of them; medians and the spread p20-p80 are given, and the ratio to native with a bootstrap
interval. Backward is all of `torch.autograd.grad`. The copy of x is the roof of a forward that reads x once.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trilemma import _C
from trilemma.ops import explain, group_norm_act

SHAPES = [(16, 128, 8, 8), (16, 64, 32, 32), (8, 128, 64, 64), (8, 256, 64, 64), (4, 128, 128, 128)]
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
GROUPS = 32

Contender = Callable[..., Tensor]


def naive(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
    u = functional.group_norm(x, GROUPS, weight.to(x.dtype), bias.to(x.dtype))
    if rest:
        scale, shift, residual = rest
        u = u * (1 + scale[:, :, None, None].to(x.dtype)) + shift[:, :, None, None].to(x.dtype)
        return functional.silu(u) + residual
    return functional.silu(u)


def in_place(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
    u = functional.group_norm(x, GROUPS, weight.to(x.dtype), bias.to(x.dtype))
    if rest:
        scale, shift, residual = rest
        u = torch.addcmul(shift[:, :, None, None].to(x.dtype), u, 1 + scale[:, :, None, None].to(x.dtype))
        return functional.silu(u, inplace=True).add_(residual)
    return functional.silu(u, inplace=True)


def native(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
    scale, shift, residual = rest or (None, None, None)
    return group_norm_act(x, GROUPS, weight, bias, scale=scale, shift=shift, residual=residual, silu=True)


def arguments(shape: tuple[int, ...], memory_format: Any, dtype: torch.dtype, adagn: bool) -> list[Tensor]:
    batch, channels = shape[:2]
    x = torch.randn(shape, dtype=dtype).to(memory_format=memory_format)
    rest = [torch.randn(batch, channels), torch.randn(batch, channels), torch.randn_like(x)] if adagn else []
    return [x, torch.rand(channels) + 0.5, torch.randn(channels), *rest]


def check(given: list[Tensor], dy: Tensor) -> None:
    """Values and gradients against float64, to the rounding of the storage."""
    scale, shift, residual = given[3:] or (None, None, None)
    told = explain("group_norm_act", given[0], GROUPS, *given[1:3], scale, shift, residual, 1e-5, True)
    assert told.backend == "native", told
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    rough = [tensor.detach().clone().requires_grad_() for tensor in given]
    y, expected = native(*rough), naive(*exact)
    pairs = [(y, expected)]
    pairs += zip(
        torch.autograd.grad(y, rough, dy), torch.autograd.grad(expected, exact, dy.double()), strict=True
    )
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[given[0].dtype]
    for found, wanted in pairs:
        assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def cells(
    shape: tuple[int, ...], dtype: torch.dtype, adagn: bool
) -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    for name, memory_format in FORMATS.items():
        given = arguments(shape, memory_format, dtype, adagn)
        dy = torch.randn_like(given[0])
        check(given, dy)
        contenders: dict[str, Contender] = {
            "native": native,
            "eager": naive,
            "in place": in_place,
            "compile": torch.compile(naive, dynamic=False),
        }

        def forward(contender: Contender, given: list[Tensor] = given) -> Callable[[], Any]:
            def call() -> Any:
                with torch.no_grad():
                    return contender(*given)

            return call

        def backward(contender: Contender, given: list[Tensor] = given, dy: Tensor = dy) -> Callable[[], Any]:
            leaves = [tensor.clone().requires_grad_() for tensor in given]
            y = contender(*leaves)
            return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)

        target = torch.empty_like(given[0])
        copy = {"copy": lambda given=given, target=target: target.copy_(given[0])}
        yield f"forward, {name}", {key: forward(value) for key, value in contenders.items()} | copy
        yield f"backward, {name}", {key: backward(value) for key, value in contenders.items()}


def measure(functions: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Microseconds of each call, the functions in turn."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(3):
            function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["native"]) < 10:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            samples[name].append(1e6 * (time.perf_counter() - start))
    return samples


def interval(slow: list[float], fast: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians."""
    generator = torch.Generator().manual_seed(0)
    slow_, fast_ = torch.tensor(slow), torch.tensor(fast)
    draws = [torch.randint(len(x), (500, len(x)), generator=generator) for x in (slow_, fast_)]
    ratios = slow_[draws[0]].median(1).values / fast_[draws[1]].median(1).values
    low, high = ratios.quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="per cell")
    parser.add_argument("--only", help="one shape, as 8x128x64x64")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--adagn", action="store_true", help="with scale, shift and residual")
    parser.add_argument("--json", action="store_true", help="one JSON line a cell, raw samples included")
    options = parser.parse_args()
    where = {"isa": _C.cpu_isa(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if not options.json:
        print(f"{platform.machine()} {where['isa']}, {where['threads']} threads, torch {where['torch']}")
    shapes = [tuple(map(int, options.only.split("x")))] if options.only else SHAPES
    for shape in shapes:
        for cell, functions in cells(shape, getattr(torch, options.dtype), options.adagn):
            samples = measure(functions, options.seconds)
            median = {name: statistics.median(values) for name, values in samples.items()}
            ratios = {
                name: interval(samples[name], samples["native"]) for name in functions if name != "native"
            }
            if options.json:
                line = {"shape": shape, "cell": cell, "dtype": options.dtype, "adagn": options.adagn, **where}
                print(json.dumps({**line, "median_us": median, "ratio": ratios, "samples_us": samples}))
                continue
            print(f"\n{'x'.join(map(str, shape))} {options.dtype}, {cell}")
            for name, values in samples.items():
                p20, _, _, p80 = statistics.quantiles(values, n=5)
                ratio = f"  {median[name] / median['native']:5.2f}x" if name in ratios else ""
                spread = "  [{:.2f}, {:.2f}]".format(*ratios[name]) if ratio else ""
                print(f"  {name:9} {median[name]:10.1f} us  (p20 {p20:.1f}, p80 {p80:.1f}){ratio}{spread}")


if __name__ == "__main__":
    main()
