"""What every CUDA kernel takes of a multiprocessor: registers, spills, stack and shared memory, an architecture each.

    python benchmarks/cuda_resources.py [--write] [--build build/cuda-check]

Compiles the CUDA sources for all architectures (no GPU is needed), fails where a kernel spills or keeps a stack, and
compares with docs/results/cuda-resources.json, which --write replaces. Another nvcc than the recorded one may differ.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "results" / "cuda-resources.json"

ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
NUMBERS = ("registers", "spilled", "stack", "shared")  # of a record; bytes but for the registers

Record = dict[str, dict[str, list[int]]]


def parse(output: str) -> Record:
    """The numbers of each kernel by architecture, from what `ptxas -v` prints."""
    found: Record = {}
    for entry in ENTRY.finditer(output):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found.setdefault(entry["kernel"], {})[entry["architecture"]] = [
            int(entry["registers"]),
            int(entry["stores"]) + int(entry["loads"]),
            int(entry["stack"]),
            int(shared[1]) if shared else 0,
        ]
    names = _readable(list(found))
    return {
        names[kernel]: dict(sorted(found[kernel].items())) for kernel in sorted(found, key=names.__getitem__)
    }


def spilling(record: Record) -> list[str]:
    """The kernels that spill registers or keep a stack, with where."""
    return [
        f"{kernel} on {architecture}: {numbers[1]} bytes spilled, {numbers[2]} of stack"
        for kernel, architectures in record.items()
        for architecture, numbers in architectures.items()
        if numbers[1] or numbers[2]
    ]


def _readable(mangled: list[str]) -> dict[str, str]:
    """Names such as linear_step_kernel<Float16, 2, 8>."""
    shown = subprocess.run(
        ["c++filt", *mangled], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {
        name: re.sub(
            r"\(anonymous namespace\)::|^void |\(.*\)$", "", line.replace("(anonymous namespace)::", "")
        )
        for name, line in zip(mangled, shown, strict=True)
    }


def _compile(build: Path) -> tuple[str, str]:
    """The version of nvcc and what it said."""
    configure = [
        *("cmake", f"-S{ROOT}", f"-B{build}", "-GNinja", "-DTRILEMMA_CUDA=check"),
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    if os.environ.get("TRILEMMA_CUDA_ARCHS"):
        configure.append(f"-DTRILEMMA_CUDA_ARCHS={os.environ['TRILEMMA_CUDA_ARCHS']}")
    said = _run(configure)
    nvcc = re.search(r"nvcc (\S+)", said)
    # What is up to date says nothing.
    for stale in build.rglob("*.cu.o"):
        stale.unlink()
    return nvcc[1] if nvcc else "unknown", _run(
        ["cmake", "--build", str(build), "--target", "trilemma_cuda_bindings", "trilemma_cuda"]
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout


def _written(nvcc: str, kernels: Record) -> str:
    """JSON, a kernel and architecture a line."""
    lines = [
        f"    {json.dumps(kernel)}: {{\n"
        + ",\n".join(f"      {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in rows.items())
        + "\n    }"
        for kernel, rows in kernels.items()
    ]
    head = f'{{\n  "nvcc": {json.dumps(nvcc)},\n  "columns": {json.dumps(NUMBERS)},\n  "kernels": {{\n'
    return head + ",\n".join(lines) + "\n  }\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the record")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "cuda-check")
    options = parser.parse_args()
    if not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()):
        print("CUDA: nvcc was not found; nothing checked")
        return
    nvcc, output = _compile(options.build)
    kernels = parse(output)
    if not kernels:
        raise SystemExit("the compiler named no kernel")
    if spills := spilling(kernels):
        raise SystemExit("\n".join(spills))
    architectures = sorted({name for rows in kernels.values() for name in rows})
    print(f"{len(kernels)} kernels on {', '.join(architectures)}: none spills")
    if options.write:
        RECORD.write_text(_written(nvcc, kernels))
        return
    recorded = json.loads(RECORD.read_text())
    changed = [
        kernel
        for kernel in {*kernels, *recorded["kernels"]}
        if _differs(kernel, kernels, recorded["kernels"])
    ]
    if changed:
        print(f"these differ from {RECORD.relative_to(ROOT)}: {', '.join(sorted(changed))}")
        if nvcc == recorded["nvcc"]:
            raise SystemExit("record them with --write")


def _differs(kernel: str, found: Record, recorded: Record) -> bool:
    ours, theirs = found.get(kernel), recorded.get(kernel)
    if ours is None or theirs is None:
        return True
    return any(numbers != theirs.get(architecture) for architecture, numbers in ours.items())


if __name__ == "__main__":
    main()
