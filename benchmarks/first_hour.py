"""From a folder of photographs to a grid of samples in four commands, killed and resumed on the way.

    python benchmarks/first_hour.py [--images FOLDER_OR_ZIP] [--layout flat] [--minutes 7] --out FOLDER

Takes `--count` images of a folder or zip of classes, as many of each, and lays them out flat or in class folders. Then
it does what a new user would: `trilemma new-recipe`, `trilemma train`, killed (SIGKILL) after a third of the steps, the
same command again, interrupted (Ctrl-C) after two thirds, once more to the end, and `trilemma sample`. It prints how
long each took; the grid is FOLDER/samples.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from trilemma.files.data_folder import find_data
from trilemma_plugins.images.files import images_by_class, open_files


def lay_out(source: Path, folder: Path, count: int, layout: str) -> None:
    """Writes `count` images of a set into a folder, as many of each class, flat or in class folders."""
    files = open_files(source)
    by_class: dict[str, list[str]] = {}
    for name, label in images_by_class(files, source):
        by_class.setdefault(label or "", []).append(name)
    for label, names in by_class.items():
        for number, name in enumerate(names[: -(-count // len(by_class))]):
            suffix = Path(name).suffix
            place = (
                folder / f"{label}-{number}{suffix}"
                if layout == "flat"
                else folder / label / f"{number}{suffix}"
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(files.read(name))


def steps_logged(run: Path) -> int:
    """Returns the last step that the log of a run tells of."""
    log = run / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):  # half a line
            continue
    return 0


def follow(words: list[str], cwd: Path, run: Path, until: int = 0, number: int = 0) -> tuple[float, int, str]:
    """Runs a command, sends it a signal once its run has logged a step; seconds, exit code, all that it said."""
    print(f"$ trilemma {shlex.join(words)}", flush=True)
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "trilemma", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as child:
        while number and child.poll() is None and steps_logged(run) < until:
            time.sleep(0.02)
        if number and child.poll() is None:
            child.send_signal(number)
        said = child.communicate()[0].strip()
    seconds = time.perf_counter() - began
    print(f"{said}\n({seconds:.0f} s, exit code {child.returncode})\n", flush=True)
    return seconds, child.returncode, said


def first_hour(
    source: Path, place: Path, count: int, layout: str, minutes: float, threads: int
) -> list[dict[str, object]]:
    """Goes from photographs to a grid and returns what each command took."""
    lay_out(source, place / "photos", count, layout)
    run = place / "runs" / "photos"
    cpu = ["--threads", str(threads)] if threads else []
    train = ["train", "recipe.toml", "--no-progress", *cpu]
    rows: list[dict[str, object]] = []

    def done(words: list[str], wanted: int, until: int = 0, number: int = 0) -> None:
        seconds, code, said = follow(words, place, run, until, number)
        if code != wanted:
            raise SystemExit(f"trilemma {shlex.join(words)} ended with {code}, expected {wanted}: {said}")
        rows.append(
            {"command": shlex.join(words), "seconds": round(seconds, 1), "exit code": code, "said": said}
        )

    done(["new-recipe", "photos", "--minutes", str(minutes), "--out", "recipe.toml", *cpu], 0)
    steps = tomllib.loads((place / "recipe.toml").read_text())["steps"]
    done(train, -signal.SIGKILL, steps // 3, signal.SIGKILL)
    done(train, 130, 2 * steps // 3, signal.SIGINT)
    done(train, 0)
    classes = sorted(entry.name for entry in (place / "photos").iterdir() if entry.is_dir())
    cond = ["--cond", f"class={list(range(len(classes)))}"] if classes else []
    columns = ["--columns", str(len(classes))] if 0 < len(classes) <= 12 else []
    n = 6 * len(classes) if columns else 64
    done(
        [
            "sample",
            "runs/photos/model",
            "-n",
            str(n),
            "--steps",
            "50",
            *cond,
            *columns,
            "--out",
            "samples.png",
            *cpu,
        ],
        0,
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, help="folder or zip of classes [default: CIFAR's of the data folder]"
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--layout", choices=("flat", "classes"), default="flat")
    parser.add_argument("--minutes", type=float, default=7.0, help="of the training")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, or none yet")
    options = parser.parse_args()
    # A shell starts its background jobs with SIGINT ignored, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    source = options.images or find_data("cifar10-train.zip")
    arguments = options.count, options.layout, options.minutes, options.threads
    rows = first_hour(source.absolute(), options.out.absolute(), *arguments)
    total = sum(float(str(row["seconds"])) for row in rows)
    (options.out / "record.json").write_text(
        json.dumps({"total": round(total, 1), "commands": rows}, indent=1) + "\n"
    )
    print(f"{total / 60:.1f} minutes in all; look at {options.out / 'samples.png'}")


if __name__ == "__main__":
    main()
