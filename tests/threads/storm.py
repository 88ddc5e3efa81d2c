"""Loads, fuses, samples and trains in many threads at once, from the first moment of a process; prints what differs.

python storm.py FOLDER make
python storm.py FOLDER THREADS ROUNDS
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import trilemma
from trilemma.models.card import build_denoiser, save_model
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

CARD: dict[str, Any] = {
    "model": {"name": "tiny"},
    "process": {"spec": "vp:T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4, "attention": [8], "head": 4},
    },
    "data": {"shape": [1, 8, 8]},
}
RECIPE = """
name = "tiny"
steps = 2
batch_size = 8
checkpoint_every = 2
log_every = 1
tensorboard = false
dataset = { spec = "mixture2d:split=train" }
process = { spec = "vp:T=50" }
objective = { spec = "simple" }
denoiser = { spec = "mlp", parameterization = "v", options = { width = 8 } }
optimizer = { lr = 0.01, warmup = 1 }
"""
REQUESTS: list[dict[str, Any]] = [
    {"sampler": "ddim", "guidance": "perturbed-attention:scale=2", "cond": {"class": 1}},
    {"sampler": "dpmpp-2m", "guidance": "cfg:scale=2", "cond": {"class": 2}},
    {"sampler": "euler-maruyama"},
    {"sampler": "rk"},
]


def digest(*tensors: Tensor) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def shaken(network: nn.Module, seed: int) -> nn.Module:
    """With no weights of zero, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def answer(network: nn.Module, variant: int) -> Tensor:
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(variant))
    with torch.no_grad():
        return network(z, torch.tensor([0.2, 0.9]), **{"class": torch.tensor([0, variant % 3])})


class Work:
    """The four things a thread may do, each with a digest of all that came of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, variant: int, place: str) -> str:
        network = trilemma.load(str(self.folder / "tiny"), fused=bool(variant % 2))
        return digest(answer(network, variant), *network.state_dict().values())

    def fuse(self, variant: int, place: str) -> str:
        network = shaken(build_denoiser(CARD, seed=variant), variant)
        plain = answer(network, variant)
        report = str(trilemma.fuse(network))
        fused = answer(network, variant)
        trilemma.unfuse(network)
        assert torch.equal(answer(network, variant), plain)
        return digest(plain, fused) + report

    def sample(self, variant: int, place: str) -> str:
        drawn = trilemma.sample(str(self.folder / "tiny"), 2, steps=2, seed=variant, **REQUESTS[variant])
        return digest(drawn.samples) + str(drawn.provenance["nfe"])

    def train(self, variant: int, place: str) -> str:
        result = train(
            read_recipe(self.folder / "tiny.toml", [f"seed={variant}"]), self.folder / "runs" / place
        )
        return digest(*load_file(result.model / "weights.safetensors").values()) + str(result.last["loss"])


def main(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    patched = (nn.Module.__call__, nn.Module.__getattr__, nn.Module.__setattr__)
    work = Work(folder)
    actions: list[Callable[[int, str], str]] = [work.load, work.fuse, work.sample, work.train]
    start = threading.Barrier(threads)
    found: list[tuple[int, int, str]] = []

    def run(thread: int) -> None:
        for number in range(rounds):
            action, variant = (thread + number) % len(actions), (number // len(actions) + thread) % 4
            start.wait()
            try:
                result = actions[action](variant, f"{thread}-{number}")
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            found.append((action, variant, result))

    everyone = [threading.Thread(target=run, args=(thread,)) for thread in range(threads)]
    for each in everyone:
        each.start()
    for each in everyone:
        each.join()

    whole = (nn.Module.__call__, nn.Module.__getattr__, nn.Module.__setattr__) == patched
    wanted = {
        (action, variant): call(variant, f"alone-{action}-{variant}")
        for action, call in enumerate(actions)
        for variant in range(4)
    }
    wrong = [
        f"{actions[action].__name__}({variant}): {result[:120]}"
        for action, variant, result in found
        if result != wanted[action, variant]
    ]
    distinct = len({*wanted.values()})
    return {
        "calls": len(found),
        "distinct": distinct,
        "wrong": len(wrong),
        "first": wrong[:5],
        "whole": whole,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2] == "make":
        made = shaken(build_denoiser(CARD, seed=1), 2)
        save_model(Path(sys.argv[1]) / "tiny", CARD, made.state_dict())
        (Path(sys.argv[1]) / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    else:
        print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
