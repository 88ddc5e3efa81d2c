"""Every way to install Trilemma, each in a fresh environment: seconds, sizes, versions, and whether it works.

    python benchmarks/install.py [--python 3.12=PROGRAM] [--only WORD] [--out docs/results]

It copies the tracked files to a temporary folder for each way, follows the commands of docs/install.md, and writes
install.json and install.md. The interpreter that runs it is the one with torch. `--python` names others: torch is not
installed there, the libraries are compiled against the torch of the first one, and what needs no torch is run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = ["numpy", "packaging", "pillow", "pluggy", "rich", "safetensors", "tomli-w", "tqdm", "typer"]
BUILD = ["setuptools", "pybind11", "cmake", "ninja"]
UNITS = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}

PAGE = """# Installing, measured

By `python benchmarks/install.py`, each in a fresh environment; [the page](../install.md) explains them.
{about}; {machine}, which other work shared: seconds are upper bounds.
"""
HEAD = """| | command | Python | seconds | fetched, MB | installed, MB | outcome |
|---|---|---|---:|---:|---:|---|"""
NOTE = """
Seconds include downloads. *Fetched* counts every distribution taken, from a network, pip's cache or a disk, those of an
isolated build among them; *installed* is what `site-packages` grew by. torch had been installed before, except where a
row says otherwise; the extras follow each other in one environment.
"""


@dataclass(frozen=True)
class Row:
    """One way to install, as it went.

    Attributes:
        name: of the way.
        command: as docs/install.md has it.
        python: version.
        seconds: of the command, the downloads among them.
        fetched: MB of the distributions that it took, from a network or a disk, those of an isolated build among them.
        added: MB of files in site-packages.
        torch: whether it fetched one.
        versions: of Trilemma and torch; of the wheel, its tag.
        outcome: of the checks after it.
    """

    name: str
    command: str
    python: str
    seconds: float
    fetched: float
    added: float
    torch: bool
    versions: dict[str, str]
    outcome: str


class Environment:
    """A fresh environment, and a fresh copy of the checkout beside it."""

    def __init__(self, place: Path, python: str = sys.executable) -> None:
        self.place, self.checkout = place, place / "trilemma"
        copy_checkout(self.checkout)
        run([python, "-m", "venv", str(place / "venv")], place)
        self.python = str(place / "venv" / "bin" / "python")
        self.version = self.ask("import platform; print(platform.python_version())")
        self.rows: list[Row] = []

    def pip(self, *arguments: str, **environment: str) -> tuple[float, float, float, bool]:
        """Returns the seconds, MB fetched, MB added, and whether torch was fetched, of `pip install`."""
        log, before, begin = self.place / "pip.log", self.size(), time.perf_counter()
        log.unlink(missing_ok=True)
        constraints = ["-c", str(self.checkout / "constraints.txt")]
        command = [self.python, "-m", "pip", "install", "--log", str(log), *constraints, *arguments]
        run(command, self.checkout, **environment)
        seconds, fetched = time.perf_counter() - begin, taken(log.read_text())
        return (
            seconds,
            sum(fetched.values()),
            self.size() - before,
            any(n.startswith("torch-") for n in fetched),
        )

    def size(self) -> float:
        """Returns the MB in site-packages, without what Python compiles there."""
        files = (self.place / "venv").glob("lib/python*/site-packages/**/*")
        return sum(p.stat().st_size for p in files if p.is_file() and p.suffix != ".pyc") / 1e6

    def ask(self, code: str) -> str:
        return run([self.python, "-c", code], self.place).strip()

    def trilemma(self, *arguments: str, wanted: int = 0) -> str:
        return run([self.python, "-m", "trilemma", *arguments], self.place, wanted)

    def versions(self) -> dict[str, str]:
        code = "import importlib.metadata as m, json; d = {x.name: x.version for x in m.distributions()}"
        found = json.loads(self.ask(f"{code}; print(json.dumps(d))"))
        return {name: found[name] for name in ("trilemma", "torch") if name in found}


def copy_checkout(target: Path) -> None:
    """Copies what is tracked and what is new, but nothing that a build or a run has left."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((ROOT / name).read_bytes())
            file.chmod((ROOT / name).stat().st_mode)


def run(command: list[str], cwd: Path, wanted: int = 0, **environment: str) -> str:
    """Returns what a command said on stdout, with an error on stderr after it where that is wanted."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRILEMMA_") and k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True)
    if done.returncode != wanted:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout + (done.stderr if wanted else "")


def taken(log: str) -> dict[str, float]:
    """Returns the MB of each distribution that a log of pip says it took from a network, its cache or a disk."""
    found = {}
    pattern = r"(?:Downloading|Using cached) (?:\S+/)?(\S+\.(?:whl|tar\.gz)) \(([\d.]+) ([kMG]B)\)"
    for name, number, unit in re.findall(pattern, log):
        found[name] = float(number) * UNITS[unit]
    for path in re.findall(r"Processing (?:file://)?(\S+\.whl)", log):
        if Path(path).is_file():
            found[Path(path).name] = Path(path).stat().st_size / 1e6
    return found


def draws(env: Environment) -> str:
    """Draws with the bundled model, and says on which kernels."""
    said = env.trilemma("sample", "mnist", "-n", "4", "--steps", "4", "--out", "x.png", "-q", "--json")
    kernels = json.loads(said)["backend"]
    doctor = env.trilemma("doctor", "--no-torch")
    assert ("the native library was not built" in doctor) == (kernels == "reference"), (kernels, doctor)
    return f"draws; {kernels} kernels"


def draws_nothing(env: Environment) -> str:
    """Runs what needs no torch, and one command that does."""
    assert "sample" in env.trilemma("--help")
    assert "ddim" in env.trilemma("plugins")
    said = env.trilemma("sample", "mnist", "--out", "x.png", wanted=1)
    assert said == "error: the package torch is not installed; pip install torch\n", said
    return "`--help` and `plugins` work; `sample` asks for torch in one line"


def types_of_a_plugin(env: Environment) -> str:
    """Writes a plugin and checks its types, as its author would."""
    env.trilemma("plugins", "new", "my-sampler", "--kind", "sampler")
    env.pip("mypy", "pytest")
    env.pip("--no-build-isolation", "--no-deps", "-e", str(env.place / "my-sampler"))
    return run([env.python, "-m", "mypy"], env.place / "my-sampler").partition(":")[0].lower()


def with_torch(place: Path) -> Environment:
    env = Environment(place)
    env.pip("torch")
    return env


def row(
    env: Environment, name: str, command: str, numbers: tuple[float, float, float, bool], said: str
) -> Row:
    seconds, fetched, added, torch = numbers
    sizes = round(seconds, 1), round(fetched, 1), round(added, 1)
    made = Row(name, command, env.version, *sizes, torch, env.versions(), said)
    print(made, flush=True)
    return made


def torch_alone(place: Path) -> list[Row]:
    env = Environment(place)
    numbers = env.pip("torch")
    return [row(env, "torch, first", "pip install torch", numbers, "—")]


def from_a_checkout(place: Path) -> list[Row]:
    env = with_torch(place)
    numbers = env.pip(".")
    assert not numbers[3], "a torch was fetched beside the one that is there"
    return [row(env, "from a checkout", "pip install .", numbers, f"{draws(env)}; torch left as it was")]


def wheel(place: Path) -> list[Row]:
    env = Environment(place)
    begin = time.perf_counter()
    run(["make", "wheel", f"PYTHON={sys.executable}"], env.checkout)
    seconds = time.perf_counter() - begin
    (made,) = (env.checkout / "dist").glob("*.whl")
    tag = made.stem.split("-", 2)[2]
    show = run([str(env.checkout / ".venv/bin/python"), "-m", "auditwheel", "show", str(made)], env.checkout)
    assert tag.rpartition("-")[2] in show, show
    megabytes = made.stat().st_size / 1e6
    said = f"`{tag}`, {megabytes:.1f} MB, clean by auditwheel"
    rows = [row(env, "a wheel", "make wheel", (seconds, 0, 0, False), said)]

    env.pip("torch")
    name = f"dist/{made.name}"
    numbers = env.pip(name)
    rows.append(row(env, "from a wheel", "pip install dist/*.whl", numbers, draws(env)))
    for extra in ("train", "digits", "bench"):
        numbers = env.pip(f"{name}[{extra}]")
        command = f'pip install "$(echo dist/*.whl)[{extra}]"'
        rows.append(row(env, f"and its extra `{extra}`", command, numbers, "—"))
    bare = Environment(place / "bare")
    wheels = bare.pip("--no-deps", str(made))
    others = bare.pip(*REQUIRED)
    both = (wheels[0] + others[0], wheels[1] + others[1], wheels[2] + others[2], False)
    rows.append(row(bare, "without torch", "pip install --no-deps dist/*.whl", both, draws_nothing(bare)))
    return rows


def editable(place: Path) -> list[Row]:
    env = with_torch(place)
    build, package = env.pip(*BUILD), env.pip("--no-build-isolation", "-e", ".")
    numbers = (build[0] + package[0], build[1] + package[1], build[2] + package[2], package[3])
    said = f"{draws(env)}; a plugin's mypy: {types_of_a_plugin(env)}"
    return [row(env, "editable", "pip install --no-build-isolation -e .", numbers, said)]


def no_compiler(place: Path) -> list[Row]:
    env = with_torch(place)
    numbers = env.pip(".", CXX="/bin/false")
    rows = [row(env, "where no compiler works", "pip install .", numbers, draws(env))]
    env = with_torch(place / "asked")
    numbers = env.pip(".", TRILEMMA_NATIVE="0")
    rows.append(row(env, "without native libraries", "TRILEMMA_NATIVE=0 pip install .", numbers, draws(env)))
    return rows


def without_torch(place: Path, python: str) -> list[Row]:
    """Another Python, for which there is no torch here."""
    env = Environment(place, python)
    others = env.pip(*REQUIRED)
    package = env.pip("--no-deps", ".", TRILEMMA_NATIVE="0")
    numbers = (others[0] + package[0], others[1] + package[1], others[2] + package[2], False)
    command = "TRILEMMA_NATIVE=0 pip install --no-deps ."
    rows = [row(env, "without torch, without native libraries", command, numbers, draws_nothing(env))]

    (headers := place / "headers").mkdir()
    code = "import importlib.util as u; print(*u.find_spec('torch').submodule_search_locations)"
    (headers / "torch").symlink_to(run([sys.executable, "-c", code], place).strip())
    env.pip(*BUILD)
    again = ["--no-deps", "--no-build-isolation", "--force-reinstall", "."]
    numbers = env.pip(*again, TRILEMMA_NATIVE="1", PYTHONPATH=str(headers))
    assert env.ask("import trilemma._C as c; print(c.cpu_isa())")
    said = "compiles against the headers of torch, `_C` loads; the operators were not run"
    command = "pip install --no-deps --no-build-isolation ."
    return [*rows, row(env, "without torch, with native libraries", command, numbers, said)]


def page(record: dict[str, Any]) -> str:
    """Returns the page of results."""
    rows = [made for way in record["ways"].values() for made in way]
    lines = [
        f"| {r['name']} | `{r['command']}` | {r['python']} | {r['seconds']:.0f} | {size(r['fetched'])} | "
        f"{size(r['added'])} | {r['outcome']} |"
        for r in rows
    ]
    versions = {name: version for r in rows for name, version in r["versions"].items()}
    about = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    machine = f"{record['compiler']}; {record['cores']} cores"
    return "\n".join([PAGE.format(about=about, machine=machine), HEAD, *lines, NOTE])


def size(megabytes: float) -> str:
    return f"{megabytes:.1f}" if megabytes else "—"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], metavar="VERSION=PROGRAM")
    parser.add_argument(
        "--only", default="", help="a word in the name of the ways to run; the others are kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    ways = {f.__name__: f for f in (torch_alone, from_a_checkout, wheel, editable, no_compiler)}
    for entry in options.python:
        version, _, program = entry.partition("=")
        ways[f"python {version}"] = partial(without_torch, python=program)
    file = options.out / "install.json"
    ran = json.loads(file.read_text())["ways"] if file.exists() else {}
    for name, way in ways.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as place:
            ran[name] = [asdict(made) for made in way(Path(place))]
        record = {
            "compiler": run(["c++", "--version"], ROOT).splitlines()[0],
            "cores": os.cpu_count(),
            "ways": {name: ran[name] for name in (*ways, *ran) if name in ran},
        }
        file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        (options.out / "install.md").write_text(page(record))


if __name__ == "__main__":
    main()
