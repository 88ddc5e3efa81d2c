"""The page of a sampler: its equation, options, cost, order and tableau."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from trilemma import lookup
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.models.places import model_path
from trilemma.models.reading import kind_of, read_card
from trilemma.registry import Component, SamplerSpec, building, catalog
from trilemma.registry.docstring import read_docstring
from trilemma.testing.exact_processes import AngleProcess, PhaseProcess

SHOWN_STEPS = 5
COUNTED_STEPS = (1, 10, 50)
# Rows of a tableau that are shown, and columns of further states.
MOST_ROWS, MOST_BACKS = 40, 3


def sampler_page(component: Component) -> str:
    """Returns the page of a registered sampler with its default options, as Markdown.

    Raises:
        PluginUnavailable: where it cannot be imported.
    """
    spec = component.spec
    sampler: Sampler = lookup.sampler(component.address)
    said = read_docstring(type(sampler))
    model = _model_for(sampler)
    paragraphs = [
        f"# {component.address}",
        _sentence(spec.summary),
        f"    trilemma sample {model} --sampler {component.address} --steps 20",
        "## Equation",
        said.body,
    ]
    if said.use:
        paragraphs += ["## When to use it", _sentence(said.use)]
    paragraphs += ["## Options", _options(sampler, said.arguments)]
    if isinstance(spec, SamplerSpec) and spec.variants:
        named = ", ".join(f"`{component.address}:{variant}`" for variant in spec.variants)
        paragraphs.append(f"Measured besides the defaults: {named}.")
    paragraphs += ["## Cost and order", _facts(sampler), "## Tableau", _tableau(sampler)]
    if said.references or spec.reference:
        paragraphs += ["## Reference", said.references or spec.reference]
    return "\n\n".join(paragraphs) + "\n"


def index_page(components: list[Component]) -> str:
    """Returns a table of samplers with links to their pages, as Markdown."""
    lines = ["| sampler | | order | evaluations of 10 steps |", "|---|---|---|---|"]
    for component in components:
        sampler: Sampler = lookup.sampler(component.address)
        cost = sampler.nfe(10) if sampler.tolerance is None else "as needed"
        link = f"[{component.address}]({file_name(component)})"
        lines.append(f"| {link} | {component.spec.summary} | {_order(sampler)} | {cost} |")
    head = (
        "# Samplers\n\nWritten by `trilemma plugins page --out docs/samplers` from the samplers themselves.\n"
    )
    measured = (
        "\nMeasured: [orders](../results/orders.md), [quality, coverage and speed](../results/samplers.md).\n"
    )
    return head + "\n" + "\n".join(lines) + "\n" + measured


def file_name(component: Component) -> str:
    """Returns the file name of a component's page."""
    return component.address.replace("/", "-") + ".md"


def _of_one_component(sampler: Sampler) -> bool:
    return sampler.components is None or 1 in sampler.components


def _model_for(sampler: Sampler) -> str:
    """Returns the name of an installed model whose process the sampler runs on, with a class where it has some."""
    others = [component.address for component in catalog().components("model")]
    for address in [*building.default_models(), *others]:
        card = read_card(model_path(address))
        if kind_of(card) != "denoiser":
            continue
        process = lookup.process(card["process"]["spec"])
        if sampler.components is None or process.components in sampler.components:
            told = card["denoiser"].get("options", {}).get("classes")
            return f"{address} --cond {LABEL}={card['data']['classes'][-1]}" if told else address
    return "MODEL"


def _sentence(text: str) -> str:
    # The name of a sampler stays as it is.
    if text.split()[0].isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def _options(sampler: Sampler, meanings: dict[str, str]) -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for entry in fields(sampler):  # type: ignore[arg-type]
        if entry.init:
            meaning = meanings.get(entry.name, "").rstrip(".").replace("|", "\\|")
            lines.append(f"| `{entry.name}` | `{_shown(getattr(sampler, entry.name))}` | {meaning} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str) else repr(value)


def _facts(sampler: Sampler) -> str:
    if sampler.tolerance is None:
        counts = ", ".join(f"{sampler.nfe(steps)} in {steps}" for steps in COUNTED_STEPS).replace(
            "in 1,", "in 1 step,"
        )
    else:
        counts = f"as many as the tolerance asks for, at least {sampler.nfe(1)}"
    facts = [
        ("evaluations of the network", counts),
        ("order", _order(sampler)),
        (
            "noise",
            "none: the state at the prior decides the sample" if sampler.deterministic else "fresh noise",
        ),
    ]
    if sampler.strong_order is not None:
        facts.append(("strong order", f"{sampler.strong_order:g}"))
    if sampler.exact:
        data = {"point": "one point", "gaussian": "a Gaussian (in law)"}
        facts.append(("exact in any number of steps on", ", ".join(data[entry] for entry in sampler.exact)))
    if sampler.components != (1,):
        kinds = "any number" if sampler.components is None else " or ".join(map(str, sampler.components))
        facts.append(("components K of the process", kinds))
    if not sampler.from_pure_noise:
        facts.append(("starts", "only where the prior keeps some signal (α > 0)"))
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    return "\n".join(lines)


def _order(sampler: Sampler) -> str:
    if sampler.tolerance is not None:
        return f"{sampler.order}, steps adapt to tolerance {sampler.tolerance:g}"
    return f"{sampler.order}" if sampler.deterministic else f"{sampler.order} in law"


def _tableau(sampler: Sampler) -> str:
    if not sampler.has_plan:
        return (
            "None: its steps are not one linear combination, so it runs code of its own and nothing is fused."
        )
    single = _of_one_component(sampler)
    process: Process = AngleProcess() if single else PhaseProcess()
    times = torch.linspace(1, 0, SHOWN_STEPS + 1, dtype=torch.float64)
    if not sampler.from_pure_noise:
        times[0] = 0.98
    tableau = sampler.plan(process, times)
    head = (
        f"{SHOWN_STEPS} even steps under {_UNDER[single]}; a row is one evaluation f of the network at t, "
        f"as {_NAMES[tableau.parameterization]}, and one fused kernel."
    )
    return head + "\n\n" + _rows(tableau)


_UNDER = {
    True: "α = cos(πt/2), σ = sin(πt/2)",
    False: "dx = 7 v dt, dv = −7 (x + 2v) dt + √28 dW, whose coefficients are 2×2",
}
_NAMES = {"x0": "x̂₀", "eps": "ε̂", "v": "v̂", "score": "the score", "flow": "the velocity ε̂ − x̂₀"}


def _rows(tableau: Tableau) -> str:
    lags = sorted({lag for row in tableau.rows for lag, _ in row.B})
    bases = any(row.base for row in tableau.rows)
    titles = ["row", "t", *(["z_base"] if bases else []), "A"]
    backs = sorted({back for row in tableau.rows for back, _ in row.D})
    together = len(backs) > MOST_BACKS
    if together:
        titles.append("D (z before)")
    else:
        titles += ["D (z)" if back == 0 else f"D (z, {back} before)" for back in backs]
    titles += ["B (f)" if lag == 0 else f"B (f, {lag} before)" for lag in lags] + ["C (ξ)"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---:|" * len(titles)]
    for number, row in enumerate(tableau.rows[:MOST_ROWS], 1):
        lines.append("| " + " | ".join(_cells(row, number, lags, bases, None if together else backs)) + " |")
    more = len(tableau.rows) - MOST_ROWS
    return "\n".join(lines) + (f"\n\nAnd {more} more rows." if more > 0 else "")


def _cells(row: Row, number: int, lags: list[int], bases: bool, backs: list[int] | None) -> list[str]:
    """The cells of a row; all further states share one where `backs` is None."""
    base = ["z" if row.base == 0 else f"{row.base} before"] if bases else []
    terms, states = dict(row.B), dict(row.D)
    if backs is None:
        weights = [", ".join(f"{_number(weight)} (z, {back} before)" for back, weight in row.D)]
    else:
        weights = [_number(states[back]) if back in states else "" for back in backs]
    weights += [_number(terms[lag]) if lag in terms else "" for lag in lags]
    return [
        str(number),
        f"{row.t:.3g}",
        *base,
        _number(row.A),
        *weights,
        _number(row.C) if _present(row.C) else "",
    ]


def _present(coefficient: Any) -> bool:
    if isinstance(coefficient, tuple):
        return any(_present(entry) for entry in coefficient)
    return bool(coefficient)


def _number(coefficient: Any) -> str:
    """Four decimals, of a matrix line by line; the minus sign of a zero is rounding's."""
    if isinstance(coefficient, tuple):
        parts = [_number(entry) for entry in coefficient]
        return f"({', '.join(parts)})"
    text = f"{float(coefficient):.4f}"
    return "0" if float(text) == 0 else text
