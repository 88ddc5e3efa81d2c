"""`trilemma plugins`: what is installed, what each component takes, and whether it does what it declares."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.errors import ConformanceError, PluginUnavailable, UsageError, nearest
from trilemma.machine.console import console, plain_table
from trilemma.registry import KINDS, Component, PluginRecord, catalog

if TYPE_CHECKING:
    from rich.console import Console

Kind = Annotated[str | None, typer.Option(help=f"Only components of this kind: {', '.join(KINDS)}.")]
# The kinds that `new` has starters for, listed here since help must not import them.
STARTED = (
    "sampler",
    "process",
    "denoiser",
    "autoencoder",
    "classifier",
    "features",
    "guidance",
    "encoder",
    "objective",
    "metric",
    "dataset",
    "kernels",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

command = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@command.callback()
def default(context: typer.Context, kind: Kind = None, as_json: Json = False) -> None:
    """List the installed plugins and what they bring."""
    if context.invoked_subcommand is None:
        list_plugins(kind, as_json)


@command.command("list")
def list_plugins(kind: Kind = None, as_json: Json = False) -> None:
    """List the installed plugins and what they bring."""
    components = catalog().components(_checked_kind(kind))
    records = catalog().records
    if as_json:
        listed = [_described(component) for component in components]
        print_json({"components": listed, "plugins": [_record(record) for record in records]}, indent=2)
        return
    out = console()
    table = plain_table("kind", "name", "summary", "from")
    for component in components:
        spec, plugin = component.spec, component.plugin
        table.add_row(spec.kind, component.address, spec.summary, f"{plugin.distribution} {plugin.version}")
    out.print(table)
    notes = [record for record in records if _note(record)]
    if notes:
        out.print("\nplugins with a note", style="bold")
        table = plain_table("plugin", "status", "reason")
        for record in notes:
            table.add_row(f"{record.address} {record.version}", record.status, _note(record))
        out.print(table)


@command.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A component, distribution/component, or a plugin.")],
    kind: Kind = None,
    as_json: Json = False,
) -> None:
    """Show what a component or plugin NAME is, and the options it takes."""
    _checked_kind(kind)
    components = [entry for entry in catalog().search(name) if kind in (None, entry.spec.kind)]
    records = [record for record in catalog().records if name in _names(record)] if kind is None else []
    if not components and not records:
        raise PluginUnavailable(_unknown(name, kind))
    if as_json:
        described = [_detailed(component) for component in components]
        print_json({"components": described, "plugins": [_record(record) for record in records]}, indent=2)
        return
    out = console()
    for place, component in enumerate(components):
        if place:
            out.print()
        _print_component(out, component)
    for record in records if not components else ():
        _print_plugin(out, record)


@command.command("page")
def page(
    names: Annotated[
        list[str] | None, typer.Argument(help="Samplers [default: all that come with Trilemma].")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a file a page, and an index where no NAMES are given."),
    ] = None,
) -> None:
    """Write the reference page of samplers NAMES as Markdown: equation, options, cost, order, tableau."""
    from trilemma.output.atomic import telling
    from trilemma.pages.sampler import file_name, index_page, sampler_page

    samplers = [entry for entry in catalog().components("sampler") if entry.built_in]
    if names:
        samplers = [catalog().find("sampler", name) for name in names]
    pages = {file_name(component): sampler_page(component) for component in samplers}
    if out is None:
        print("\n".join(pages.values()), end="")
        return
    if not names:
        pages["README.md"] = index_page(samplers)
    with telling(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (out / name).write_text(text, encoding="utf-8")
    print(f"{len(pages)} pages in {out}")


@command.command("check")
def check(
    name: Annotated[
        str, typer.Argument(help="A component with its options, such as ddim:eta=0.5, or a plugin.")
    ],
    kind: Kind = None,
    as_json: Json = False,
) -> None:
    """Check that component or plugin NAME does what it declares; exit code 4 where it does not."""
    from trilemma.registry.spec import parse_spec
    from trilemma.testing import check_plugin, run_checks

    _checked_kind(kind)
    bare = parse_spec(name).name
    components = [entry for entry in catalog().search(bare) if kind in (None, entry.spec.kind)]
    plugin = kind is None and any(name in _names(record) for record in catalog().records)
    if not components and not plugin:
        raise PluginUnavailable(_unknown(bare, kind))
    results = [result for entry in components for result in run_checks(entry.spec.kind, name)]
    if not components:
        results = check_plugin(name)
    if as_json:
        print_json([asdict(result) for result in results], indent=2)
    else:
        table = plain_table("kind", "check", "status", "reason")
        for result in results:
            table.add_row(result.kind, result.name, result.status, result.reason)
        console().print(table)
    failed = [result for result in results if result.failed]
    if failed:
        checks = ", ".join(result.name for result in failed)
        raise ConformanceError(
            f"{name} fails {len(failed)} of {len(results)} checks: {checks}; repair the plugin"
        )


@command.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the distribution, such as my-sampler.")],
    kind: Annotated[
        str,
        typer.Option(metavar="KIND", help=f"What it brings: {', '.join(STARTED)}."),
    ],
    path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write it into, empty or not there yet [default: NAME]."),
    ] = None,
) -> None:
    """Write a distribution NAME to start from: one component that works, typed, with its tests.

    It passes its own checks at once. Change what it computes, and let them say whether that is still true.
    """
    from trilemma.cli.new_plugin import write_distribution

    names, folder = write_distribution(name, kind, path)
    place = shlex.quote(str(folder))
    print(f"{folder} holds {names.distribution}, which brings the {kind} {names.component}; next:")
    print(f"  cd {place}")
    print('  pip install -e ".[dev]"')
    print(f"  trilemma plugins check {names.component}")
    print("  pytest && mypy && ruff check .")


def _print_component(out: Console, component: Component) -> None:
    detail = _detailed(component)
    out.print(f"{detail['kind']} {component.address}", style="bold")
    out.print(detail["summary"])
    facts = plain_table()
    for key in ("reference", "target", "extra", "distribution"):
        if detail[key]:
            facts.add_row(key, f"{detail[key]} {detail['version']}" if key == "distribution" else detail[key])
    if detail["note"]:
        facts.add_row("note", detail["note"])
    out.print(facts)
    if detail["options"] is None:
        out.print("its options cannot be read from its source")
    elif detail["options"]:
        table = plain_table("option", "default", "type", "meaning")
        for option in detail["options"]:
            default = "(required)" if option["default"] is None else option["default"]
            table.add_row(option["name"], default, option["annotation"], option["help"])
        out.print(table)


def _print_plugin(out: Console, record: PluginRecord) -> None:
    out.print(f"plugin {record.address} {record.version}", style="bold")
    facts = plain_table()
    facts.add_row("module", record.module)
    facts.add_row("status", record.status)
    if note := _note(record):
        facts.add_row("reason", note)
    if record.components:
        facts.add_row("brings", ", ".join(f"{spec.kind} {spec.name}" for spec in record.components))
    out.print(facts)


def _described(component: Component) -> dict[str, Any]:
    spec, plugin = component.spec, component.plugin
    return {
        "kind": spec.kind,
        "name": spec.name,
        "address": component.address,
        "summary": spec.summary,
        "reference": spec.reference,
        "target": spec.target,
        "extra": spec.extra,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "plugin": plugin.name,
        "status": plugin.status,
        "note": plugin.reason,
    }


def _detailed(component: Component) -> dict[str, Any]:
    from trilemma.registry.source import read_source

    detail = {**_described(component), "description": "", "options": []}
    if component.spec.kind != "model":
        source = read_source(component.spec.target)
        detail["description"] = source.docstring if source else ""
        detail["options"] = [asdict(option) for option in source.options] if source else None
    return detail


def _record(record: PluginRecord) -> dict[str, Any]:
    return {
        "plugin": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "module": record.module,
        "status": record.status,
        "reason": record.reason,
        "milliseconds": round(record.milliseconds, 3),
        "imported_torch": record.imported_torch,
        "components": [{"kind": spec.kind, "name": spec.name} for spec in record.components],
    }


def _note(record: PluginRecord) -> str:
    notes = [record.reason] if record.reason else []
    if record.imported_torch:
        notes.append("its module imports torch, which slows every command down")
    if record.slow:
        notes.append(f"it takes {record.milliseconds / 1e3:.1f} s to load, which every command waits for")
    return "; ".join(notes)


def _names(record: PluginRecord) -> tuple[str, ...]:
    return record.name, record.distribution, record.address


def _unknown(name: str, kind: str | None) -> str:
    known = {component.address for component in catalog().components(kind)}
    if kind is None:
        known |= {entry for record in catalog().records for entry in _names(record)}
    near = nearest(name, sorted(known), n=3)
    guess = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"unknown {kind or 'component or plugin'} {name!r}; {guess}trilemma plugins lists them all"


def _checked_kind(kind: str | None) -> str | None:
    if kind is not None and kind not in KINDS:
        near = nearest(kind, KINDS)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown kind {kind!r}; {guess}kinds: {', '.join(KINDS)}")
    return kind
