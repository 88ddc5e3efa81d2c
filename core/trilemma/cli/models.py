"""`trilemma models`: the trained models that are installed, and what the card of one says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.errors import TrilemmaError, UsageError, nearest
from trilemma.machine.console import console, plain_table
from trilemma.models.card_tables import CARD_KINDS
from trilemma.registry import Component, catalog

if TYPE_CHECKING:
    from trilemma.models.listing import Listed


def command(
    name: Annotated[str | None, typer.Argument(help="A model's name or directory, to show its card.")] = None,
    kind: Annotated[
        str | None, typer.Option(help=f"Only models of this kind: {', '.join(CARD_KINDS)}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the trained models that are installed, or show the card of model NAME."""
    if kind is not None and kind not in CARD_KINDS:
        near = nearest(kind, CARD_KINDS)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown kind {kind!r}; {guess}kinds: {', '.join(CARD_KINDS)}")
    if name is not None:
        _show(name, as_json)
        return
    entries = [_entry(component) for component in catalog().components("model")]
    entries = [entry for entry in entries if kind in (None, entry["kind"])]
    if as_json:
        print_json(entries, indent=2)
        return
    table = plain_table("name", "kind", "parameters", "size", "images", "conditions", "licence", "summary")
    for entry in entries:
        table.add_row(*_row(entry))
    console().print(table)


def _entry(component: Component) -> dict[str, Any]:
    """Returns the fields of a registered model; where its card cannot be read, the reason alone."""
    from trilemma.models.listing import listed
    from trilemma.models.places import registered_path

    entry = {
        "name": component.address,
        "summary": component.spec.summary,
        "reference": component.spec.reference,
        "distribution": component.plugin.distribution,
        "version": component.plugin.version,
    }
    try:
        return {**entry, **_described(listed(registered_path(component))), "error": None}
    except TrilemmaError as error:
        return {**entry, "kind": None, "error": str(error)}


def _described(model: Listed) -> dict[str, Any]:
    card = model.card
    return {
        "kind": model.kind,
        "parameters": model.parameters,
        "bytes": model.size,
        "shape": model.shape,
        "conditions": model.conditions,
        "licence": card["model"].get("licence"),
        "autoencoder": card.get("latent", {}).get("autoencoder"),
        "stages": [table["model"] for table in card.get("stage", ())],
        "path": str(model.path),
    }


def _row(entry: Mapping[str, Any]) -> Iterator[str]:
    yield entry["name"]
    if entry["error"] is not None:
        yield from ("?", "", "", "", "", "", entry["error"])
        return
    yield entry["kind"]
    yield f"{entry['parameters']:,}"
    yield _in_bytes(entry["bytes"])
    yield "×".join(map(str, entry["shape"] or ()))
    yield ", ".join(map(_told, entry["conditions"]))
    yield entry["licence"] or ""
    yield entry["summary"]


def _told(condition: Mapping[str, Any]) -> str:
    name, kind = condition["name"], condition["kind"]
    words = f"{condition['size']} classes" if "size" in condition else "" if name == kind else str(kind)
    return f"{name} ({words})" if words else str(name)


def _in_bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _show(name: str, as_json: bool) -> None:
    from trilemma.models.listing import listed
    from trilemma.models.places import model_path

    model = listed(model_path(name))
    if as_json:
        print_json({"name": model.card["model"]["name"], **_described(model), "card": model.card}, indent=2)
        return
    out = console()
    described = _described(model)
    out.print(f"{model.kind} {model.card['model']['name']}", style="bold")
    if summary := model.card["model"].get("summary"):
        out.print(summary)
    facts = plain_table()
    facts.add_row("parameters", f"{model.parameters:,}")
    facts.add_row("size", _in_bytes(model.size))
    if described["conditions"]:
        facts.add_row("conditions", ", ".join(map(_told, described["conditions"])))
    facts.add_row("licence", described["licence"] or "not stated")
    facts.add_row("folder", described["path"])
    out.print(facts)
    for title, table in _tables(model.card):
        out.print(f"\n{title}", style="bold")
        rows = plain_table()
        for key, value in _flat(table):
            rows.add_row(key, value)
        out.print(rows)


def _tables(card: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for title, content in card.items():
        if isinstance(content, list):
            yield from ((f"{title} {number}", table) for number, table in enumerate(content, 1))
        elif isinstance(content, dict) and title != "model":
            yield title, content


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
