"""Kills training runs at random moments, resumes them, and compares their ends with that of a run never killed.

    python benchmarks/kill_campaign.py [--recipe digits] [--kills 50] [--processes 2] [--seed 0] [--out FILE]

The recipes: `digits`, a network with dropout and grids of samples; `gan`, two networks with an optimizer each and a
penalty in every eighth step; `energy`, whose answer is a gradient; `coder`, an autoencoder; `classifier`, with
running statistics; `student`, beside a teacher that never learns; `adversarial`, a student and its discriminator;
`ddgan`, a generator that draws; `recovery`, with chains of Langevin steps and a bound. A run has two processes
(gloo), or one. A moment is a step, drawn uniformly, and a delay after its beginning, up to twice as long as it takes:
between two updates, while a checkpoint is written, or anywhere else. SIGKILL hits both processes, or one of them
while the other finds out. Each run is killed once, or twice, then resumed to its end. Weights, averages, the
optimizers' states, the written model, the log and the grids must be the same bits; one that differs is printed, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import socket
import tempfile
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch
from safetensors.torch import load_file

DIGITS = """
name = "killed"
steps = 20
batch_size = 8
checkpoint_every = 3
log_every = 4
tensorboard = false
dataset = { spec = "digits" }
process = { spec = "vp:schedule=cosine,T=50" }
objective = { spec = "simple:drop=0.2" }

[denoiser]
options = { channels = [8], blocks = 1, classes = 10, patch = 2, groups = 4, dropout = 0.3 }

[samples]
every = 3
n = 4
steps = 2
cond = { class = [0, 1, 2, 3] }

[optimizer]
lr = 0.01
warmup = 4
"""
ROOT = Path(__file__).resolve().parent.parent / "plugins" / "trilemma_plugins"
SHORT = ["checkpoint_every=3", "log_every=4", "tensorboard=false", "batch_size=32", "validation.every=10"]
CLASSIFIER = """
name = "classifier"
steps = 40
dataset = { spec = "digits" }
features = { spec = "image-network", options = { normalised = true } }
objective = { spec = "cross-entropy:smoothing=0.1,shift=1,flip=true" }
"""
STUDENT = """
name = "student"
steps = 60
start = "START"
dataset = { spec = "mixture2d:n=2000" }
process = { spec = "vp:schedule=cosine,T=64" }
denoiser = { spec = "mlp", options = { width = 32 } }
objective = { spec = "progressive:steps=8" }
"""
ADVERSARIAL = DIGITS.replace(
    "simple:drop=0.2",
    "adversarial:judge=START,layers=['down.0.0'],steps=2,since=2,gamma=0.1",
)
RECOVERY = """
name = "recovery"
steps = 60
dataset = { spec = "mixture2d:n=2000" }
process = { spec = "vp" }
denoiser = { spec = "energy-mlp", parameterization = "eps", options = { width = 32 } }
objective = { spec = "recovery:steps=3,chain=5,end=0.05" }
"""
TEXTS = {
    "digits": (DIGITS, []),
    "classifier": (CLASSIFIER, SHORT),
    "student": (STUDENT, SHORT),
    "adversarial": (ADVERSARIAL, []),
    "recovery": (RECOVERY, SHORT),
}
FILES = {
    "gan": ("points/recipes/gan.toml", ["optimizer.discriminator.clip=1.0"]),
    "energy": ("points/recipes/energy.toml", []),
    "coder": ("digits/recipes/coder.toml", []),
    "ddgan": ("ddgan/recipes/points.toml", []),
}


def recipe_of(name: str, place: Path) -> tuple[Path, list[str]]:
    """Returns the file of a recipe and the values that replace some of it; a model to begin with is trained first."""
    if name in FILES:
        file, more = FILES[name]
        return ROOT / file, [*SHORT, "steps=60", *more]
    text, more = TEXTS[name]
    file = place / "recipe.toml"
    file.write_text(text.replace("START", str(place / "teacher" / "model")))
    if "START" in text:
        from trilemma.train import read_recipe, train

        # Without the accelerator's state, which belongs to the processes of a run.
        teacher = read_recipe(file, [*more, "steps=30", "objective.spec=simple"])
        train(dataclasses.replace(teacher, start=None), place / "teacher")
    return file, more


# Imported once, so that a start of a run is a fork.
NEEDED = (
    *("torch", "torch._dynamo", "accelerate", "sklearn.datasets", "PIL.PngImagePlugin", "trilemma.output"),
    *(
        "trilemma.models.loading",
        "trilemma.train",
        "trilemma_plugins.digits.dataset",
        "trilemma_plugins.unet.unet",
        "trilemma_plugins.points.adversarial",
        "trilemma_plugins.points.energy",
        "trilemma_plugins.recovery.objective",
        "trilemma_plugins.ddgan.objective",
        "trilemma_plugins.distillation.adversarial",
        "trilemma_plugins.digits.coder",
        "trilemma_plugins.metrics.image_network",
    ),
    *("trilemma_plugins.ddim.sampler", "trilemma_plugins.ddpm.process", "trilemma_plugins.objectives.simple"),
)
PATIENCE = 60.0  # seconds that a process may take to notice that the other one is gone


def train_as(
    rank: int, world: int, port: int, recipe: tuple[Path, list[str]], folder: Path, step: ctypes.c_longlong
) -> None:
    """Runs one of the processes of a run, which tells its steps as they begin."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(world)}
    from trilemma.train import read_recipe, train, trainer

    torch.set_num_threads(1)
    inner = trainer._Run._step

    def told(run: trainer._Run, k: int) -> dict[str, torch.Tensor]:
        step.value = k
        return inner(run, k)

    trainer._Run._step = told
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        train(read_recipe(*recipe), folder)


class Run:
    """The processes of one start of a run."""

    def __init__(
        self, context: ForkServerContext, world: int, recipe: tuple[Path, list[str]], folder: Path
    ) -> None:
        self.step = context.RawValue(ctypes.c_longlong, -1)
        port = free_port()
        self.processes: list[ForkServerProcess] = [
            context.Process(target=train_as, args=(rank, world, port, recipe, folder, self.step))
            for rank in range(world)
        ]
        for process in self.processes:
            process.start()

    def kill_at(self, step: int, delay: float, victims: list[int]) -> bool:
        """Kills the victims `delay` seconds after the step began; whether they still lived."""
        while self.step.value < step and all(process.is_alive() for process in self.processes):
            time.sleep(0.001)
        time.sleep(delay)
        lived = all(process.is_alive() for process in self.processes)
        for victim in victims:
            self.processes[victim].kill()
        self.wait(PATIENCE)
        return lived

    def seconds(self) -> float:
        """Returns the time from the first step to the end."""
        while self.step.value < 0 and all(process.is_alive() for process in self.processes):
            time.sleep(0.001)
        began = time.perf_counter()
        return time.perf_counter() - began if self.wait() else math.nan

    def wait(self, patience: float | None = None) -> bool:
        """Waits for the end of every process; whether all ended well."""
        for process in self.processes:
            process.join(patience)
            if process.is_alive():
                process.kill()
                process.join()
        return all(process.exitcode == 0 for process in self.processes)


def free_port() -> int:
    """Returns a port that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ends(folder: Path) -> dict[str, torch.Tensor | bytes | list[object]]:
    """Returns all that a finished run left and that must be the same."""
    found: dict[str, torch.Tensor | bytes | list[object]] = {}
    final = max((folder / "checkpoints").glob("step-*"))
    for path in (final / "state.safetensors", folder / "model" / "weights.safetensors"):
        found |= {f"{path.name}/{name}": tensor for name, tensor in load_file(path).items()}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found["log"] = [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
    from PIL import Image

    for path in sorted((folder / "samples").glob("*.png")):
        with Image.open(path) as picture:
            found[path.name] = picture.tobytes()
    found["left behind"] = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if "partial" in path.name
    )
    return found


def differing(first: Path, second: Path) -> list[str]:
    """Returns the names of what two finished runs left differently."""
    a, b = ends(first), ends(second)
    both = [name for name in a if name in b]
    unequal = [
        name
        for name in both
        if not (torch.equal(a[name], b[name]) if isinstance(a[name], torch.Tensor) else a[name] == b[name])
    ]
    return unequal + sorted(set(a) ^ set(b))


def campaign(name: str, kills: int, world: int, seed: int, place: Path) -> dict[str, object]:
    """Runs the campaign and returns its record."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED))
    recipe = recipe_of(name, place)
    took = Run(context, world, recipe, place / "unbroken").seconds()
    if math.isnan(took):
        raise SystemExit("the run that nobody killed failed")
    steps = max(
        int(path.name.removeprefix("step-")) for path in (place / "unbroken" / "checkpoints").iterdir()
    )
    chance, hit, equal, again = random.Random(seed), 0, 0, 0
    for number in range(kills):
        folder = place / f"killed-{number}"
        while True:
            for _ in range(chance.choice((1, 1, 2))):
                run = Run(context, world, recipe, folder)
                victims = chance.choice([list(range(world)), [chance.randrange(world)]])
                moment = chance.randrange(steps), chance.uniform(0, 2 * took / steps)
                hit += run.kill_at(*moment, victims)
            if run.step.value >= 0 or (folder / "checkpoints").exists():
                break
        while not Run(context, world, recipe, folder).wait():
            again += 1
            if again > 3:
                raise SystemExit(f"run {number} does not end")
        different = differing(place / "unbroken", folder)
        equal += not different
        print(
            f"{number}: step {moment[0]} of {steps}, victims {victims}: {different or 'the same bits'}",
            flush=True,
        )
        shutil.rmtree(folder)
    counts = {"runs": kills, "processes": world, "kills": hit, "equal": equal, "failed_resumes": again}
    return {"recipe": name, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recipe",
        default="digits",
        choices=sorted({**TEXTS, **FILES}),
        help="what is trained",
    )
    parser.add_argument("--kills", type=int, default=50, help="runs that are killed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        record = campaign(options.recipe, options.kills, options.processes, options.seed, Path(place))
    print(f"{record['equal']} of {record['runs']} bit-identical, after {record['kills']} kills")
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    raise SystemExit(record["equal"] != record["runs"])


if __name__ == "__main__":
    main()
