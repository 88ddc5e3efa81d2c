"""Times contenders in turn, so that a slow spell of the machine hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# More than the last cache of common machines.
_FLUSHED_BYTES = 128 << 20


@dataclass(frozen=True)
class Times:
    """Seconds of one call in each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def quantile(self, q: float) -> float:
        return float(torch.tensor(self.rounds, dtype=torch.float64).quantile(q))


def measure(
    contenders: Mapping[str, Callable[[], object]],
    device: torch.device,
    seconds: float,
    cold: bool,
    *,
    least: int = 9,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Times]:
    """Returns the times of every contender, measured round by round.

    On the CPU `torch.utils.benchmark` times blocks of calls, on CUDA `triton.testing.do_bench`, which flushes the
    cache before each call.

    Args:
        contenders: by name.
        device: where they run.
        seconds: to spend, about.
        cold: flush the caches before each call; CUDA always does.
        least: rounds.
        before: by the name of a contender what is called, untimed, before a block of its calls; CPU only.
    """
    if device.type == "cuda":
        return _on_cuda(contenders, seconds)
    from torch.utils.benchmark import Timer

    flushed = torch.zeros(_FLUSHED_BYTES // 4 if cold else 1)
    threads = torch.get_num_threads()
    timers = {
        name: Timer(
            "call()",
            setup="before(); flushed.add_(1)" if cold else "before()",
            globals={"call": call, "flushed": flushed, "before": (before or {}).get(name, _nothing)},
            num_threads=threads,
        )
        for name, call in contenders.items()
    }
    blocks, spent = {}, 0.0
    for name, timer in timers.items():
        # The first calls compile, allocate and fault pages.
        warm = 3 if least > 3 else 1
        timer.timeit(warm)
        once = timer.timeit(warm).median
        blocks[name] = 1 if cold else max(1, round(1e-3 / max(once, 1e-7)))
        spent += blocks[name] * once
    rounds = max(least, min(300, int(seconds / spent)))
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer.timeit(blocks[name]).median)
    return {name: Times(tuple(values)) for name, values in times.items()}


def _nothing() -> None:
    """Before a contender for which nothing is to be done."""


def _on_cuda(contenders: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Times]:
    from triton.testing import do_bench  # type: ignore[import-not-found, unused-ignore]

    each = 1e3 * seconds / len(contenders)
    found: dict[str, Any] = {
        name: do_bench(call, warmup=each / 4, rep=each, return_mode="all")
        for name, call in contenders.items()
    }
    return {name: Times(tuple(1e-3 * value for value in values)) for name, values in found.items()}


def ratio(slow: Times, fast: Times) -> tuple[float, float, float]:
    """Returns the ratio of the medians and its 95 % bootstrap interval."""
    generator = torch.Generator().manual_seed(0)

    def draws(times: Times) -> torch.Tensor:
        values = torch.tensor(times.rounds, dtype=torch.float64)
        picks = torch.randint(len(values), (500, len(values)), generator=generator)
        return values[picks].median(1).values

    ratios = draws(slow) / draws(fast)
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, slow.median / fast.median, high
