"""The corruption campaign: every seed is a damaged file and a command that meets it.

    python tests/robustness/campaign.py               all cases
    python tests/robustness/campaign.py --seeds 17    one, with what it printed

Each case runs in a fork of one warmed-up process, which may add 2 GB of memory and take 20 s. It must end well or in
one line that says what to do; a training that goes on from a damaged checkpoint must end in the weights that it would
have ended in.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import damage

CASES = 2000
SECONDS = 20
MEMORY = 2 << 30

CARD = {
    "model": {"name": "tiny", "summary": "a model to damage"},
    "process": {"spec": "vp:schedule=cosine,T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4},
    },
    "data": {"shape": [1, 8, 8], "range": [-1.0, 1.0], "classes": ["a", "b", "c"], "dataset": "digits"},
    "sampling": {"sampler": "ddim:eta=0.5"},
    "evaluation": {"dataset": "digits", "features": "mnist-features", "metrics": ["frechet"]},
    "provenance": {"seed": 0, "objective": "simple"},
}
RECIPE = """# a recipe to damage
name = "tiny"
steps = 2
batch_size = 4
checkpoint_every = 1
keep = 2
log_every = 1
tensorboard = false
ema = 0.9

[dataset]
spec = "mnist:root=mnist"

[process]
spec = "vp:schedule=cosine,T=50"

[denoiser]
spec = "mlp"
parameterization = "v"
options = { width = 8, depth = 1, classes = 10 }

[objective]
spec = "simple:drop=0.1"

[optimizer]
lr = 0.01
warmup = 1
betas = [0.9, 0.99]
clip = 1.0

[samples]
every = 0
sampler = "ddim"
steps = 2

[sampling]
sampler = "ddim"
"""


@dataclass
class Outcome:
    """What a case ended in: nothing in `fault` where that was right."""

    seed: int
    kind: str
    damage: str
    command: list[str]
    code: int | None
    error: str
    fault: str = ""


def make_assets(home: Path) -> None:
    """Sound files of every kind, made by the program itself where it can."""
    import torch
    from PIL import Image

    from trilemma.cli.app import main
    from trilemma.models.card import build_denoiser, save_model

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        state = build_denoiser(CARD, seed=0).state_dict()
    save_model(
        home / "model",
        CARD,
        {n: t + 0.05 * torch.randn(t.shape, generator=generator) for n, t in state.items()},
    )
    (home / "mnist").mkdir()
    for split in ("train", "t10k"):
        pixels = torch.randint(0, 256, (20, 28, 28), generator=generator, dtype=torch.uint8)
        images = struct.pack(">4I", 0x803, 20, 28, 28) + pixels.numpy().tobytes()
        (home / "mnist" / f"{split}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2I", 0x801, 20) + bytes(index % 3 for index in range(20))
        (home / "mnist" / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(picture, "PNG")
    (home / "start.png").write_bytes(picture.getvalue())
    with zipfile.ZipFile(home / "images.zip", "w") as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
            archive.writestr(name, picture.getvalue())
    (home / "recipe.toml").write_text(RECIPE)
    with inside(home):
        assert main(["train", "recipe.toml", "--out", "run", "--no-progress"]) == 0
        Path("weights").write_bytes(Path("run", "model", "weights.safetensors").read_bytes())
        shutil.rmtree("run/model")
        for checkpoint in sorted((home / "run" / "checkpoints").iterdir())[1:]:
            shutil.rmtree(checkpoint)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


SAMPLE = ["sample", "model", "-n", "1", "--steps", "1", "-o", "x.npz", "--no-progress"]
TRAIN = ["train", "recipe.toml", "--out", "run", "--no-progress"]

# A kind of case: its share, the files that it damages, what it copies, and its command.
KINDS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...], list[str]]] = {
    "card": (36, ("model/model.toml",), ("model",), SAMPLE),
    "evaluation": (4, ("model/model.toml",), ("model",), ["eval", "model", "-n", "4", "--no-progress"]),
    "weights": (16, ("model/weights.safetensors",), ("model",), SAMPLE),
    "recipe": (14, ("recipe.toml",), ("recipe.toml", "mnist"), [*TRAIN[:2], "--out", "new", "--no-progress"]),
    "checkpoint": (8, ("state.json", "state.safetensors"), ("recipe.toml", "mnist", "run"), TRAIN),
    "idx": (
        8,
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("mnist",),
        ["data", "mnist:root=mnist"],
    ),
    "zip": (8, ("images.zip",), ("images.zip",), ["data", "images:root=images.zip,mode=L"]),
    "png": (6, ("start.png",), ("model", "start.png"), [*SAMPLE, "--start", "start.png"]),
}
TEXTS = (".toml", ".json")


def prepare(seed: int, home: Path, folder: Path) -> tuple[str, str, list[str]]:
    """Copies what a case needs and damages it: the kind of case, the damage, the command."""
    dice = random.Random(seed)
    kind = dice.choices(list(KINDS), [share for share, *_ in KINDS.values()])[0]
    _, targets, needed, command = KINDS[kind]
    for name in needed:
        source = home / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    target = dice.choice([path for name in targets for path in sorted(folder.rglob(Path(name).name))])
    content = target.read_bytes()
    special = dice.random() < 0.5
    if target.suffix == ".safetensors" and special:
        changed, fault = damage.damaged_tensors(content, dice)
    elif target.suffix == ".zip" and special:
        changed, fault = damage.damaged_zip(content, dice)
    else:
        changed, fault = damage.damaged(content, dice, text=target.suffix in TEXTS)
    damage.write(target, changed)
    if (
        kind == "weights" and changed is not None and dice.random() < 0.8
    ):  # the checksum too, so that more is read
        card = folder / "model" / "model.toml"
        right, new = (hashlib.sha256(blob).hexdigest() for blob in (content, changed))
        card.write_text(card.read_text().replace(right, new))
    return kind, f"{target.name}: {fault}", command


def run_command(command: list[str]) -> int:
    """The exit code of the command line; "data SPEC" reads a whole data set as training does."""
    import torch

    import trilemma
    from trilemma.cli import app

    if command[0] != "data":
        return app.main(command)
    try:
        for split in ("train", "test"):
            if "images" in command[1] and split == "test":
                continue
            found = trilemma.dataset(command[1], **({} if "images" in command[1] else {"split": split}))
            found.batch(torch.arange(len(found)))
    except Exception as error:
        return app._report(error)
    return 0


def child(seed: int, home: Path, folder: Path) -> None:
    """Runs a case in this process and ends it."""
    signal.alarm(SECONDS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    code = 99
    try:
        kind, fault, command = prepare(seed, home, folder / "work")
        (folder / "case.json").write_text(json.dumps([kind, fault, command]))
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.chdir(folder / "work")
        code = run_command(command)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_case(seed: int, home: Path) -> Outcome:
    """Runs a case in a fork and judges it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work").mkdir()
        process = os.fork()
        if process == 0:
            child(seed, home, folder)
        _, status = os.waitpid(process, 0)
        if not (folder / "case.json").is_file():
            return Outcome(seed, "?", "?", [], None, "", "the case could not be prepared")
        kind, fault, command = json.loads((folder / "case.json").read_text())
        said, error = ((folder / part).read_bytes().decode("utf-8", "replace") for part in ("out", "err"))
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if killed else os.WEXITSTATUS(status)
        outcome = Outcome(seed, kind, fault, command, code, error)
        outcome.fault = f"killed by signal {killed}" if killed else wrong(code, said, error)
        trained = folder / "work" / "run" / "model" / "weights.safetensors"
        if kind == "checkpoint" and code == 0 and trained.read_bytes() != (home / "weights").read_bytes():
            outcome.fault = "it went on to other weights"
        return outcome


def wrong(code: int | None, said: str, error: str) -> str:
    """What is wrong with how a command ended."""
    if code == 0:
        return f"it ended well and complained: {error}" if error else ""
    if code not in (1, 2, 3):
        return f"exit code {code}"
    line = error.removesuffix("\n")
    checks = {
        "no line": error.endswith("\n") and line.startswith("error: "),
        "not one printable line": line.isprintable(),
        f"{len(line)} characters": len(line) < 300,
        "a raw error": "TRILEMMA_TRACEBACK" not in line and "Traceback" not in line,
        "no cure": ";" in line,
        "something on stdout": not said,
    }
    return next((fault for fault, right in checks.items() if not right), "")


def campaign(seeds: list[int]) -> list[Outcome]:
    """Runs the cases of these seeds from one process, which does everything once before it forks."""
    import torch
    import tqdm

    tqdm.tqdm.monitor_interval = 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            make_assets(home)
            with tempfile.TemporaryDirectory() as scratch:
                for needed in ("model", "mnist", "images.zip", "start.png"):
                    source = home / needed
                    (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(scratch) / needed)
                with inside(Path(scratch)):
                    for _, _, _, command in KINDS.values():
                        if command[0] != "train":
                            with contextlib.redirect_stderr(io.StringIO()):
                                run_command(command)
        gc.collect()
        gc.freeze()
        return [run_case(seed, home) for seed in seeds]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default=f"0-{CASES - 1}", help="such as 17 or 0-99")
    first, _, last = parser.parse_args().seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    began = time.perf_counter()
    outcomes = campaign(seeds)
    bad = [outcome for outcome in outcomes if outcome.fault]
    for outcome in outcomes if len(seeds) == 1 else bad:
        print(
            f"seed {outcome.seed} [{outcome.kind}] {outcome.damage}: {outcome.fault or 'as it should'}; exit "
            f"{outcome.code}: {outcome.error[-600:]!r}\n    python tests/robustness/campaign.py --seeds {outcome.seed}"
        )
    kinds = Counter(outcome.kind for outcome in outcomes)
    well = sum(outcome.code == 0 for outcome in outcomes)
    print(json.dumps({"cases": len(outcomes), "bad": len(bad), "ended_well": well, "kinds": kinds}))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
