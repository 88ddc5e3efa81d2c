"""Runs of several networks, of gradients and of other kinds of models are killed at chosen moments and go on alike.

`benchmarks/kill_campaign.py --recipe NAME` kills them at random ones, in two processes too.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from support.killing import NEEDED, run_until
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train

SHORT: dict[str, Any] = {
    "steps": 9,
    "batch_size": 16,
    "tensorboard": False,
    "checkpoint_every": 3,
    "log_every": 2,
    "optimizer": {"lr": 0.01, "warmup": 2},
}
POINTS = {"dataset": {"spec": "mixture2d:n=200"}, "process": {"spec": "vp-continuous"}}
RECIPES: dict[str, dict[str, Any]] = {
    "gan": {
        **POINTS,
        "denoiser": {"spec": "mlp", "parameterization": "x0", "options": {"width": 8}},
        "objective": {"spec": "gan:width=8,every=2"},
    },
    "energy": {
        **POINTS,
        "denoiser": {"spec": "energy-mlp", "parameterization": "eps", "options": {"width": 8}},
        "objective": {"spec": "simple"},
    },
    "coder": {
        "dataset": {"spec": "digits"},
        "autoencoder": {"spec": "small-coder", "options": {"width": 4}},
        "objective": {"spec": "autoencoding"},
    },
}
# Of the GAN every second update is the generator's: after the 9th and the 13th, half of a step is done.
MOMENTS = [
    ("gan", ("update", 8)),
    ("gan", ("update", 12)),
    ("gan", ("checkpoint", 1)),
    ("gan", ("sync", 5)),
    ("gan", ("model", 0)),
    ("energy", ("update", 4)),
    ("energy", ("checkpoint", 1)),
    ("coder", ("log", 2)),
    ("coder", ("model", 0)),
]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Any:
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            train(make_recipe({**SHORT, **RECIPES[name]}), folders[name])
        return folders[name]

    return get


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "moment"), MOMENTS, ids=lambda entry: entry if isinstance(entry, str) else str(entry)
)
def test_a_killed_run_ends_with_the_same_bits(name, moment, unbroken, tmp_path):
    recipe, folder = {**SHORT, **RECIPES[name]}, tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED))
    child = context.Process(target=run_until, args=(recipe, str(folder), moment))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert not (folder / "model").exists()
    train(make_recipe(recipe), folder)
    first, second = (ends(place) for place in (unbroken(name), folder))
    assert first.keys() == second.keys()
    for key, value in first.items():
        same = torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        assert same, key
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


def ends(folder: Path) -> dict[str, Any]:
    """All that a finished run left and that must be the same."""
    last = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    found: dict[str, Any] = {f"{g}/{n}": t for g, tensors in last.tensors.items() for n, t in tensors.items()}
    found |= {"scalars": last.scalars, "model": (folder / "model" / "weights.safetensors").read_bytes()}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return found | {"log": [line | {"images_per_second": 0} for line in lines]}
