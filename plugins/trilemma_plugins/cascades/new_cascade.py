"""`trilemma new-cascade`: put trained models together into the model directory of a cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.shared_options import Stages
from trilemma.cli.stages import stages_of

if TYPE_CHECKING:
    from trilemma.models.listing import Listed


def command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Names or directories of the stages, smallest first."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model directory to write.")],
    stage: Stages = None,
    name: Annotated[str | None, typer.Option(help="Name in its card [default: that of --out].")] = None,
    summary: Annotated[str, typer.Option(help="A line on what it draws.")] = "",
    dataset: Annotated[str | None, typer.Option(help="Data set that it is measured with.")] = None,
    features: Annotated[str | None, typer.Option(help="Feature network that it is measured with.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the model directory that is there.")
    ] = False,
) -> None:
    """Put MODEL... together into a cascade: one directory with copies of all of them.

    --stage 2:noise=0.1,steps=10 becomes a part of its card, which counts where a request says nothing else.
    """
    from trilemma.errors import OutputError, UsageError
    from trilemma.models.card import save_model
    from trilemma.models.listing import listed
    from trilemma.models.places import model_path

    if out.exists() and not force:
        raise OutputError(f"{out} exists; choose another --out, or give --force to replace it")
    found = [listed(model_path(model)) for model in models]
    options = stages_of(stage or ()) or {}
    if beyond := [number for number in options if not 1 <= number <= len(found)]:
        raise UsageError(f"--stage {beyond[0]}: there is no such stage; the cascade has {len(found)}")
    folders = _folders(found)
    tables = [
        {"model": folder, **_checked(number, options.get(number, {}))}
        for number, folder in enumerate(folders, 1)
    ]
    _try(found, tables)
    licences = {entry.card["model"].get("licence") for entry in found}
    evaluation = {key: value for key, value in (("dataset", dataset), ("features", features)) if value}
    card: dict[str, Any] = {
        "model": {
            "name": name or out.resolve().name,
            "kind": "cascade",
            "summary": summary or " to ".join("×".join(map(str, (entry.shape or ())[1:])) for entry in found),
            "licence": next(iter(licences)) if len(licences) == 1 else None,
        },
        "stage": tables,
        **({"evaluation": evaluation} if evaluation else {}),
    }
    save_model(out, card, {}, {folder: entry.path for folder, entry in zip(folders, found, strict=True)})
    made = listed(out)
    typer.echo(
        f"{out}: {len(found)} stages, {made.parameters:,} parameters, {made.size / 1e6:.2f} MB of weights"
    )
    if len(licences) > 1:
        typer.echo("its models have different licences, and its card names none; add one", err=True)


def _folders(found: Sequence[Listed]) -> list[str]:
    """A folder for each model by its name, numbered where two have the same."""
    names = [str(entry.card["model"]["name"]) for entry in found]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]


def _checked(number: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a stage as its card has them.

    Raises:
        UsageError: for one that a card does not have, or one of another type.
    """
    from trilemma.errors import UsageError, nearest, shown
    from trilemma.models.card_tables import IN_TOML, KEYS

    known = {key: kind for key, kind in KEYS["stage"][1].items() if key != "sha256"}
    for key, value in options.items():
        if key not in known:
            near = nearest(key, known)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"--stage {number}: unknown option {shown(key)}; {guess}")
        types = (int, float) if known[key] is float else known[key]
        if not isinstance(value, types) or (known[key] is not bool and isinstance(value, bool)):
            raise UsageError(f"--stage {number}: {key}={shown(value)} is not {IN_TOML[known[key]]}; give one")
    return dict(options)


def _try(found: Sequence[Listed], tables: Sequence[Mapping[str, Any]]) -> None:
    """Makes the cascade ready to sample, so that nothing is written that could not be."""
    from trilemma.engine.cascade import chunks_of
    from trilemma.engine.request import Request
    from trilemma.errors import UsageError
    from trilemma.models.card import load_model
    from trilemma.models.cascade import Cascade, Stage

    stages = []
    for entry, table in zip(found, tables, strict=True):
        if entry.kind != "denoiser":
            raise UsageError(f"{entry.path} is of kind {entry.kind}, and a stage is a denoiser; give another")
        model = load_model(entry.path)
        stages.append(Stage(model, **{key: value for key, value in table.items() if key != "model"}))
    cascade = Cascade(stages)
    chunks_of(Request(cascade, 1, cond=_examples(cascade.conditions)))


def _examples(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each condition that must have one."""
    import torch

    by_kind = {
        "class": lambda condition: 0,
        "scalar": lambda condition: condition.low,
        "image": lambda condition: torch.zeros(1, *condition.shape),
    }
    return {
        name: by_kind[condition.kind](condition)
        for name, condition in conditions.items()
        if not condition.has_null and condition.kind in by_kind
    }
