"""Declared and measured orders of every registered sampler, as a table and as JSON.

python benchmarks/orders.py [--out docs/results]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from trilemma import lookup
from trilemma.interfaces.sampler import Sampler
from trilemma.registry import catalog
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.orders import (
    Measured,
    errors_in_tolerances,
    measured_orders,
    order_in_phase_space,
    phase_law_error_of_sample,
)


def record(spec: str) -> dict[str, Any]:
    """What a sampler declares, and what its own conformance checks measure."""
    sampler: Sampler = lookup.sampler(spec)
    one, two = (sampler.components is None or K in sampler.components for K in (1, 2))
    off = errors_in_tolerances(sampler) if one and sampler.tolerance is not None else {}
    if two and sampler.tolerance is not None:
        off["phase"] = phase_law_error_of_sample(sampler, PhaseProcess()) / sampler.tolerance
    measured = list(measured_orders(sampler)) if one else []
    return {
        "sampler": spec,
        "deterministic": sampler.deterministic,
        "order": sampler.order,
        "strong_order": sampler.strong_order,
        "exact": list(sampler.exact),
        "tolerance": sampler.tolerance,
        "errors_in_tolerances": {where: round(error, 3) for where, error in off.items()},
        "measured": [_measured(entry) for entry in measured],
        "in_phase_space": _measured(order_in_phase_space(sampler)) if two and sampler.has_plan else None,
    }


def _measured(entry: Measured) -> dict[str, Any]:
    order = None if math.isinf(entry.order) else round(entry.order, 3)
    shown = {"what": entry.what, "data": entry.data, "process": entry.process, "steps": list(entry.steps)}
    return {**shown, "errors": [float(f"{error:.3g}") for error in entry.errors], "order": order}


COLUMNS = (
    *("sampler", "declared", "on a Gaussian", "on a mixture", "in phase space"),
    *("strong, declared", "strong", "in time", "exact on"),
)


def table(records: list[dict[str, Any]]) -> str:
    """The lowest measured order of each kind; "exact" where the error is rounding everywhere."""
    lines = [
        "# Orders of convergence",
        "",
        "Written by `python benchmarks/orders.py` from the measurements of the conformance kit: slopes of the error",
        "over uneven times that end above 0, in float64, the lowest of three processes. A deterministic sampler is",
        'measured along the probability flow, a stochastic one in law ("weak") on Gaussian data. Of one that adapts',
        "its steps to a tolerance it is the largest error at the end of the flow, in tolerances. In phase space, of",
        "position and velocity, it is that of the exact law of both on Gaussian data. Strong orders are along coupled",
        'paths, and "in time" those of whole runs under noise="brownian" against 1280 steps, in float32.',
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for entry in records:
        kind = "flow" if entry["deterministic"] else "weak"
        strong = "" if entry["strong_order"] is None else f"{entry['strong_order']:g}"
        cells = [
            f"`{entry['sampler']}`",
            f"{entry['order']} ({kind})",
            *(
                _lowest(entry, ("flow", "law"), data) or _in_tolerances(entry, data)
                for data in ("gaussian", "mixture")
            ),
            _in_phase_space(entry),
            strong,
            _lowest(entry, ("path",), "mixture"),
            _lowest(entry, ("time",), "mixture"),
            ", ".join(entry["exact"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _lowest(entry: dict[str, Any], what: tuple[str, ...], data: str) -> str:
    found = [m["order"] for m in entry["measured"] if m["what"] in what and m["data"] == data]
    if not found:
        return ""
    finite = [order for order in found if order is not None]
    return f"{min(finite):.2f}" if finite else "exact"


def _in_phase_space(entry: dict[str, Any]) -> str:
    found = entry["in_phase_space"]
    if found is None:
        return _in_tolerances(entry, "phase")
    return "exact" if found["order"] is None else f"{found['order']:.2f}"


def _in_tolerances(entry: dict[str, Any], data: str) -> str:
    found = [error for where, error in entry["errors_in_tolerances"].items() if where.startswith(data)]
    return f"{max(found):.1f} tolerances" if found else ""


def specs() -> list[str]:
    """Every sampler, and the variants it registered."""
    return [
        f"{component.address}:{variant}" if variant else component.address
        for component in catalog().components("sampler")
        for variant in ("", *component.spec.variants)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    out = parser.parse_args().out
    records = [record(spec) for spec in specs()]
    out.mkdir(parents=True, exist_ok=True)
    (out / "orders.json").write_text(json.dumps(records, indent=1) + "\n")
    (out / "orders.md").write_text(table(records))


if __name__ == "__main__":
    main()
