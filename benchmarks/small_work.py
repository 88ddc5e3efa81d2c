"""Costs of a step beside the network: planning, lowering and launching, beside diffusers, k-diffusion and azula.

    python benchmarks/small_work.py --out docs/results

draws one and 64 images of 1×28×28 with a network that costs next to nothing, in turn by every library, and
writes OUT/small-work.json and OUT/small-work.md. Microseconds a step are of the whole call, less the network's own.
One thread.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

import trilemma
from trilemma.bench.timing import Times, measure
from trilemma.engine import planning
from trilemma.interfaces.denoiser import Denoiser

SHAPE = (1, 28, 28)
STEPS = (10, 50, 250, 1000)
BATCHES = (1, 64)
TRAINED = 1000
SAMPLERS = ("ddim", "dpmpp-2m", "heun", "unipc", "ddim:eta=1")
PROCESS = "vp:schedule=linear,T=1000"


class Half(Denoiser):
    """Answers with half the state."""

    def __init__(self) -> None:
        super().__init__(trilemma.process(PROCESS), "eps", SHAPE)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return z * 0.5


def ours(start: Tensor, sampler: str, steps: int, again: bool) -> Callable[[], Tensor]:
    """Draws by a plan that was used before, or by a new one each time."""
    model, made = Half().eval(), trilemma.sampler(sampler)

    def run() -> Tensor:
        if not again:
            planning.forget()
        drawn = trilemma.sample(
            model, len(start), sampler=made, steps=steps, latent=start, dtype=torch.float32
        )
        return drawn.samples

    return run


def of_diffusers(start: Tensor, name: str, steps: int) -> Callable[[], Tensor]:
    import diffusers

    options: dict[str, Any] = {"timestep_spacing": "trailing", "beta_schedule": "linear"}
    if name == "DDIMScheduler":
        options |= {"clip_sample": False}

    def run() -> Tensor:
        scheduler = getattr(diffusers, name)(**options)
        scheduler.set_timesteps(steps)
        z = start
        for t in scheduler.timesteps:
            z = scheduler.step(z * 0.5, t, z).prev_sample
        return z

    return run


@cache
def samplers_of_k_diffusion() -> Any:
    """Returns k_diffusion.sampling, whose package imports far more than it needs."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        raise ModuleNotFoundError("No module named 'k_diffusion'")
    package: Any = ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations or ())
    utils: Any = MagicMock()
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    package.utils = utils
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    for module in ("torchdiffeq", "torchsde"):
        sys.modules.setdefault(module, MagicMock())
    return importlib.import_module("k_diffusion.sampling")


def of_k_diffusion(start: Tensor, name: str, steps: int) -> Callable[[], Tensor]:
    sampling = samplers_of_k_diffusion()

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return x * 0.5

    def run() -> Tensor:
        sigmas = sampling.get_sigmas_karras(steps, 0.01, 80.0)
        drawn: Tensor = getattr(sampling, name)(model, start, sigmas, disable=True)
        return drawn

    return run


def of_azula(start: Tensor, name: str, steps: int) -> Callable[[], Tensor]:
    for module in ("einops", "einops.layers", "einops.layers.torch"):
        sys.modules.setdefault(module, MagicMock())  # of its networks, which are not used here
    from azula import noise, sample

    schedule = noise.VPSchedule()

    class HalfDenoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, z: Tensor, t: Tensor, **_: Any) -> Any:
            return SimpleNamespace(mean=z * 0.5)

    sampler = getattr(sample, name)(HalfDenoiser(), steps=steps, silent=True)
    return lambda: sampler(start)


PEERS: Mapping[str, tuple[Callable[..., Callable[[], Tensor]], str]] = {
    "diffusers DDIM": (of_diffusers, "DDIMScheduler"),
    "diffusers DPM-Solver++": (of_diffusers, "DPMSolverMultistepScheduler"),
    "k-diffusion Euler": (of_k_diffusion, "sample_euler"),
    "k-diffusion DPM-Solver++ 2M": (of_k_diffusion, "sample_dpmpp_2m"),
    "azula DDIM": (of_azula, "DDIMSampler"),
}


def cell(batch: int, steps: int, seconds: float) -> dict[str, Any]:
    """Microseconds a step of each contender, the network's own taken off."""
    start = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
    contenders: dict[str, Callable[[], object]] = {"network": lambda: start * 0.5}
    for sampler in SAMPLERS:
        contenders[f"{sampler}, used before"] = ours(start, sampler, steps, True)
        contenders[f"{sampler}, new plan"] = ours(start, sampler, steps, False)
    left_out = {}
    for name, (made, peer) in PEERS.items():
        try:
            run = made(start, peer, steps)
            with torch.inference_mode():
                run()
        except Exception as error:  # another version of a peer, or one that is not installed
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        contenders[name] = run
    with torch.inference_mode():
        times = measure(contenders, torch.device("cpu"), seconds, cold=False)
    network = times.pop("network").median

    def each(name: str, found: Times) -> float:
        evaluations = 2 * steps - 1 if name.startswith("heun") else steps
        return 1e6 * (found.median / evaluations - network)

    return {
        "batch": batch,
        "steps": steps,
        "network": 1e6 * network,
        "microseconds": {name: each(name, found) for name, found in times.items()},
        "left_out": left_out,
    }


def planning_cells(seconds: float) -> list[dict[str, Any]]:
    """Microseconds a row of planning and lowering alone, by a new plan."""
    process = trilemma.process(PROCESS)
    rows = []
    for sampler in SAMPLERS:
        made = trilemma.sampler(sampler)
        for steps in STEPS:

            def run(made: Any = made, steps: int = steps) -> object:
                planning.forget()
                return planning.planned(made, process, steps, "eps")

            count = len(planning.planned(made, process, steps, "eps").program or ())
            found = measure({"plan": run}, torch.device("cpu"), seconds, cold=False)["plan"]
            rows.append({"sampler": sampler, "steps": steps, "microseconds": 1e6 * found.median / count})
    return rows


def first_image() -> dict[str, float]:
    """Milliseconds of the first image of a loaded model, of the second, and of their ten evaluations alone."""
    model, draw = trilemma.load("mnist", fused=True), trilemma.sample
    z, t, label = torch.zeros(1, *SHAPE), torch.ones(1), torch.tensor([7])

    def network() -> Tensor:
        answer: Tensor = model(z, t, **{"class": label})
        return answer

    with torch.inference_mode():
        began = time.perf_counter()
        network()
        warming = time.perf_counter() - began
    found = []
    for _ in range(2):
        began = time.perf_counter()
        draw(model, 1, sampler="ddim", steps=10, cond={"class": 7})
        found.append(time.perf_counter() - began)
    with torch.inference_mode():
        alone = measure({"network": network}, torch.device("cpu"), 1.0, cold=False)["network"].median
    return {
        "warming": 1e3 * warming,
        "first": 1e3 * found[0],
        "second": 1e3 * found[1],
        "network": 1e3 * 10 * alone,
    }


def table(record: Mapping[str, Any]) -> str:
    """Returns the record as Markdown."""
    names = list(record["cells"][0]["microseconds"])
    lines = [
        "# Small work",
        "",
        f"By `python benchmarks/small_work.py`, on {record['cpu']}, torch {record['torch']}, one thread.",
        "",
        "Microseconds an evaluation beside the network, which answers with half the state; images of 1×28×28.",
        "",
        "| | " + " | ".join(f"{c['steps']} steps, batch {c['batch']}" for c in record["cells"]) + " |",
        "|---|" + "---:|" * len(record["cells"]),
    ]
    for name in names:
        values = (cell["microseconds"].get(name) for cell in record["cells"])
        shown = ["–" if value is None else f"{value:.1f}" for value in values]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    for name, why in record["cells"][0]["left_out"].items():
        lines.append(f"\n{name} could not be run: {why}")
    lines += [
        "",
        "Planning and lowering of a new plan, microseconds a row; a plan used before costs a look-up:",
        "",
        "| | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |",
        "|---|" + "---:|" * len(STEPS),
    ]
    for sampler in SAMPLERS:
        values = [row["microseconds"] for row in record["planning"] if row["sampler"] == sampler]
        lines.append(f"| {sampler} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    first = record["first_image"]
    lines += [
        "",
        f"The first image of the loaded model `mnist`, by ten steps of `ddim`, takes {first['first']:.1f} ms and the "
        f"second {first['second']:.1f} ms; ten evaluations of the network alone take {first['network']:.1f} ms, and "
        f"its very first one, before that, {first['warming']:.1f} ms.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each cell, about")
    given = parser.parse_args()
    torch.set_num_threads(1)
    record = {
        "cpu": _cpu(),
        "torch": torch.__version__,
        "first_image": first_image(),
        "planning": planning_cells(given.seconds / 8),
        "cells": [cell(batch, steps, given.seconds) for batch in BATCHES for steps in STEPS],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "small-work.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = table(record)
    (given.out / "small-work.md").write_text(text, encoding="utf-8")
    print(text)


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
