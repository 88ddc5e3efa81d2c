"""Compiles the CUDA kernels and their bindings for the CPU, against the emulated execution model beside this file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
CSRC = ROOT / "csrc"
TORCH = Path(torch.__file__).parent
FLAGS = [
    *("-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"),
    *("-DTRILEMMA_CUDA", "-DTRILEMMA_EMULATED", "-DTORCH_TARGET_VERSION=0x020b000000000000ULL"),
    *(f"-I{HERE}", f"-I{CSRC / 'include'}", f"-I{CSRC / 'torch'}"),
    *("-isystem", str(TORCH / "include")),
    *("-include", "cuda_runtime.h"),
]


def sources() -> list[Path]:
    """The kernels, and the bindings that csrc/cuda/CMakeLists.txt lists."""
    kernels = sorted((CSRC / "cuda").glob("*.cu"))
    (listed,) = re.findall(r"set\(bindings (.*)\)", (CSRC / "cuda" / "CMakeLists.txt").read_text())
    return kernels + [CSRC / "torch" / f"{name}.cpp" for name in listed.split()]


def build(flags: tuple[str, ...] = ()) -> Path:
    """The library, built again only where a source changed.

    Raises:
        FileNotFoundError: where there is no C++ compiler.
        subprocess.CalledProcessError: where the sources do not compile.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        raise FileNotFoundError("c++ was not found")
    content = hashlib.sha256(repr((compiler, FLAGS, flags, torch.__version__)).encode())
    for file in sorted((*CSRC.rglob("*.*"), *HERE.glob("*.h"))):
        content.update(file.read_bytes())
    library = ROOT / "build" / "emulated" / f"_ops_emulated-{content.hexdigest()[:16]}.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    # Several test processes ask for it at once, and one of them builds it.
    with (library.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            for stale in (*library.parent.glob("*.so"), *library.parent.glob("*.o")):
                stale.unlink()
            _build(library, compiler, flags)
    return library


def _build(library: Path, compiler: str, flags: tuple[str, ...]) -> None:
    def compiled(source: Path) -> Path:
        object_file = library.parent / f"{source.name}.o"
        command = [compiler, *FLAGS, *flags, "-x", "c++", "-c", str(source), "-o", str(object_file)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return object_file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(file) for file in pool.map(compiled, sources())]
    whole = library.with_suffix(".partial")
    subprocess.run(
        [compiler, "-shared", *flags, *objects, str(TORCH / "lib" / "libtorch_cpu.so"), "-o", str(whole)],
        check=True,
    )
    whole.replace(library)


if __name__ == "__main__":
    print(build())
