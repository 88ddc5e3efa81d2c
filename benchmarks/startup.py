"""How long the light commands take to start: wall and CPU time of fresh processes, beside a bare interpreter's.

    python benchmarks/startup.py [--runs 20] [--json]

The CPU time is what the command costs; the wall time is what a user waits on this machine as loaded as it is now.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

BARE = ["-c", "pass"]
COMMANDS = [["--help"], ["--version"], ["plugins"], ["plugins", "--json"], ["doctor", "--no-torch"]]


def measure(arguments: list[str], runs: int) -> dict[str, float]:
    """Milliseconds of wall and CPU time, the median and the least of some runs after one that warms the caches."""
    wall, cpu = [], []
    for _ in range(runs + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        wall.append((time.perf_counter() - start) * 1e3)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3)
    wall, cpu = wall[1:], cpu[1:]
    return {
        "wall_median": statistics.median(wall),
        "wall_least": min(wall),
        "cpu_median": statistics.median(cpu),
        "cpu_least": min(cpu),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bare = measure(BARE, options.runs)
    results = {"python -c pass": bare}
    results |= {
        f"trilemma {' '.join(args)}": measure(["-m", "trilemma", *args], options.runs) for args in COMMANDS
    }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(
        f"{'ms':<28}{'wall median':>12}{'wall least':>12}{'CPU median':>12}{'CPU least':>12}{'× bare CPU':>12}"
    )
    for name, row in results.items():
        ratio = row["cpu_least"] / bare["cpu_least"]
        print(f"{name:<28}" + "".join(f"{value:>12.0f}" for value in row.values()) + f"{ratio:>12.1f}")


if __name__ == "__main__":
    main()
