"""One guided, clipped, noisy step: the native kernel against eager PyTorch, naive and in place.

    OMP_NUM_THREADS=2 python benchmarks/linear_step.py [--json]

Correctness against float64 comes first. The three are run in turn, so that a slow spell hits all of them; medians and
the spread p20-p80 are given, and the ratio to native with a bootstrap interval. Bytes are the least that the step must
move (read z and both branches, write both replicas); the copy of the same working set is the roof.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable

import torch

from trilemma import _C
from trilemma.noise import STEP, reference_normal
from trilemma.ops import explain, layout, linear_step

SHAPES = [(16, 3, 32, 32), (64, 1, 28, 28), (64, 3, 64, 64), (8, 3, 512, 512)]
SCALE, CLIP = 2.0, 1.0


def table() -> torch.Tensor:
    row = torch.zeros(1, layout.WIDTH, dtype=torch.float64)
    row[0, layout.W] = torch.tensor([SCALE, 1 - SCALE, 0, 0], dtype=torch.float64)
    row[0, layout.P], row[0, layout.Q], row[0, layout.S] = 1.25, -0.75, 1.0
    row[0, layout.A], row[0, layout.B.start], row[0, layout.C], row[0, layout.CLIP] = 0.9, 0.1, 0.2, CLIP
    return row


def contenders(shape: tuple[int, ...]) -> tuple[dict[str, Callable[[], object]], torch.Tensor]:
    """The step three ways, and the state that native left."""
    batch = shape[0]
    z, output, out = (
        torch.randn(shape),
        torch.randn(2 * batch, *shape[1:]),
        torch.empty(2 * batch, *shape[1:]),
    )
    coefficients, indices = table(), torch.arange(batch)
    a, b, c, p, q = (float(coefficients[0, i]) for i in (layout.A, 1, layout.C, layout.P, layout.Q))
    x0, noise = torch.empty_like(z), torch.empty_like(z)
    pair = output.unflatten(0, (2, batch))

    def native() -> None:
        linear_step(out, z, z, output, coefficients, 0, indices=indices)

    def naive() -> torch.Tensor:
        cond, null = output.chunk(2)
        x0_hat = (p * z + q * (null + SCALE * (cond - null))).clamp(-CLIP, CLIP)
        state = a * z + b * x0_hat + c * torch.randn_like(z)
        return torch.cat([state, state])

    def in_place() -> None:
        torch.lerp(pair[1], pair[0], SCALE, out=x0)
        x0.mul_(q).add_(z, alpha=p).clamp_(-CLIP, CLIP)
        state = out[:batch]
        torch.mul(z, a, out=state)
        state.add_(x0, alpha=b).add_(noise.normal_(), alpha=c)
        out[batch:].copy_(state)

    assert explain("linear_step", out, z, z, output, coefficients, 0, indices=indices).backend == "native"
    native()
    check(out, z, output)
    source = torch.empty(5 * z.numel() // 2)
    target = torch.empty_like(source)
    return {"native": native, "naive": naive, "in place": in_place, "copy": lambda: target.copy_(source)}, z


def check(out: torch.Tensor, z: torch.Tensor, output: torch.Tensor) -> None:
    row, batch = table()[0], len(z)
    cond, null = output.double().chunk(2)
    x0 = (row[layout.P] * z + row[layout.Q] * (SCALE * cond + (1 - SCALE) * null)).clamp(-CLIP, CLIP)
    xi = reference_normal(0, torch.arange(batch), 0, math.prod(z.shape[1:]), STEP).view_as(z)
    expected = row[layout.A] * z + row[layout.B.start] * x0 + row[layout.C] * xi
    torch.testing.assert_close(out.double(), torch.cat([expected, expected]), rtol=1e-5, atol=1e-5)


def measure(functions: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Microseconds of each call, the functions in turn."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(3):
            function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["native"]) < 20:
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
    parser.add_argument("--seconds", type=float, default=2.0, help="per shape")
    parser.add_argument("--json", action="store_true", help="one JSON line a shape, raw samples included")
    options = parser.parse_args()
    where = {"isa": _C.cpu_isa(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if not options.json:
        print(f"{platform.machine()} {where['isa']}, {where['threads']} threads, torch {where['torch']}")
    for shape in SHAPES:
        functions, z = contenders(shape)
        samples = measure(functions, options.seconds)
        median = {name: statistics.median(values) for name, values in samples.items()}
        moved = 5 * z.numel() * z.element_size()
        line = {
            "shape": shape,
            **where,
            "median_us": median,
            "gigabytes_per_second": {name: moved / median[name] / 1e3 for name in ("native", "copy")},
            "ratio": {name: interval(samples[name], samples["native"]) for name in ("naive", "in place")},
        }
        if options.json:
            print(json.dumps({**line, "samples_us": samples}))
            continue
        print(f"\n{'x'.join(map(str, shape))}")
        for name, values in samples.items():
            p20, _, _, p80 = statistics.quantiles(values, n=5)
            ratio = f"  {median[name] / median['native']:5.2f}x" if name in line["ratio"] else ""
            spread = "  [{:.2f}, {:.2f}]".format(*line["ratio"][name]) if ratio else ""
            print(f"  {name:9} {median[name]:10.1f} us  (p20 {p20:.1f}, p80 {p80:.1f}){ratio}{spread}")
        share = line["gigabytes_per_second"]["native"] / line["gigabytes_per_second"]["copy"]
        print(f"  native moves {line['gigabytes_per_second']['native']:.1f} GB/s, {share:.0%} of the copy")


if __name__ == "__main__":
    main()
