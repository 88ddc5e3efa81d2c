"""`trilemma doctor`: what is installed, which kernels run, and why CUDA is or is not there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trilemma.cli.answer import print_json


def command(
    torch: Annotated[bool, typer.Option(help="Import torch, to see what really runs; slow.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed, which kernels run, and why CUDA is or is not there."""
    from trilemma.cli.diagnosis import diagnose

    sections = diagnose(with_torch=torch)
    if as_json:
        print_json(sections, indent=2)
        return
    for name, facts in sections.items():
        print(name)
        for key, value in _flat(facts):
            print(f"  {key:<16} {value}")
        if not facts:
            print("  none")


def _flat(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{key} {name}", text) for name, text in _flat(value)]
        else:
            rows.append((key, _readable(value)))
    return rows


def _readable(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
