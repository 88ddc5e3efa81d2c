"""Tables and pictures of samplers from the JSON lines of `trilemma bench samplers --out FILE.jsonl`.

    python benchmarks/sampler_tables.py docs/results/samplers.jsonl --out docs/results --at 10 --at 50

Writes OUT/samplers.md (or another STEM), OUT/samplers-nfe.png (Fréchet distance against NFE, a line a sampler) and
OUT/samplers-triangle.png (Fréchet distance, recall and speed at the NFE budgets given by --at, where recall was
measured). Models that were measured beside the samplers are in one table with all budgets, points beside the lines, and
in one triangle. Needs the extra bench.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from trilemma import lookup
from trilemma.errors import PluginUnavailable

Record = Mapping[str, Any]
SHOWN = 3.0
COLOURS = [f"C{i}" for i in range(10)]
METRICS = ("frechet", "precision", "recall", "class-agreement")


def read(path: Path) -> list[Record]:
    """The last record of each sampler and budget, and of each model beside them.

    Raises:
        SystemExit: for samplers of several models, or several n, seeds or dtypes, which do not compare.
    """
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for names, some in (
        (("n", "seed", "network_dtype", "features"), records),
        (("model",), [r for r in records if not r.get("own")]),
    ):
        kinds = {tuple(json.dumps(r["key"][name]) for name in names) for r in some}
        if len(kinds) != 1:
            raise SystemExit(
                f"{path} holds {len(kinds)} kinds of runs, which do not compare; give a file of one"
            )
    last = {
        (r["key"]["model"]["name"],) if r.get("own") else (r["key"]["sampler"], r["budget"]): r
        for r in records
    }
    return sorted(last.values(), key=lambda r: (r["budget"] or 0, r["key"]["sampler"]))


def with_speed(records: Sequence[Record], measured: Sequence[Record]) -> list[Record]:
    """The records with images/s as they were measured in another run, of any n."""
    speeds = {_drawn(r): r.get("images_per_second") for r in measured}
    return [{**r, "images_per_second": speeds.get(_drawn(r))} for r in records]


def _drawn(record: Record) -> tuple[object, ...]:
    """The weights that a record's samples come from, their sampler and its evaluations."""
    return record["key"]["model"]["sha256"], record["key"]["sampler"], record["budget"]


def short_names(records: Sequence[Record]) -> dict[str, str]:
    """Specs without the options that have their defaults, where the sampler is installed."""
    names = {}
    for spec in {r["key"]["sampler"] for r in records}:
        head, _, options = spec.partition(":")
        own = [option for option in options.split(",") if option not in _defaults(head)]
        names[spec] = f"{head}:{','.join(own)}" if own and options else head
    return names


@cache
def _defaults(head: str) -> frozenset[str]:
    try:
        spec = lookup.describe("sampler", lookup.sampler(head))
    except PluginUnavailable:
        return frozenset()
    return frozenset(spec.partition(":")[2].split(","))


def of_samplers(records: Sequence[Record]) -> list[Record]:
    """The records of samplers on the one model that is swept."""
    return [r for r in records if not r.get("own")]


def of_models(records: Sequence[Record]) -> list[Record]:
    """The records of the models beside it, drawn as their cards say."""
    return [r for r in records if r.get("own")]


def heading(records: Sequence[Record]) -> list[str]:
    """The conditions of all records, in words."""
    key = of_samplers(records)[0]["key"]
    return [
        f"Model `{key['model']['name']}` (weights {str(key['model']['sha256'])[:12]}), {key['n']:,} samples a cell, "
        f"seed {key['seed']}, network in {key['network_dtype']}. Features: {key['features']}; these are "
        "not Inception features.",
        "The Fréchet distance of finite sets is biased upwards, equally for all cells here; it does not compare with "
        "tables of other numbers of samples.",
    ]


def comparison(records: Sequence[Record]) -> str:
    """One Markdown table of samplers and models, fewest evaluations first, then the best Fréchet distance."""
    names = short_names(records)
    teacher = of_samplers(records)[0]["key"]["model"]["name"]
    titles = "| model | sampler | steps | NFE | Fréchet ↓ | precision ↑ | recall ↑ | class agreement ↑ | images/s ↑ |"
    lines = [*heading(records), "", titles, "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    done = [r for r in records if r["reason"] is None]
    for r in sorted(done, key=lambda r: (r["nfe"], r["metrics"].get("frechet", float("inf")))):
        key, speed = r["key"], r["images_per_second"]
        name = f"**`{key['model']['name']}`**" if r.get("own") else f"`{teacher}`"
        cells = [_number(r["metrics"].get(metric), metric) for metric in METRICS]
        cells.append("" if speed is None else f"{speed:.3g}" if speed < 100 else f"{speed:.0f}")
        lines.append(
            f"| {name} | `{names[key['sampler']]}` | {key['steps']} | {r['nfe']} | {' | '.join(cells)} |"
        )
    failed = [r for r in records if r["reason"] is not None]
    lines += [""] if failed else []
    for r in failed:
        what = r["key"]["model"]["name"] if r.get("own") else f"{names[r['key']['sampler']]} at {r['budget']}"
        lines.append(f"Not run: `{what}`: {r['reason']}")
    return "\n".join(lines) + "\n"


def tables(records: Sequence[Record]) -> str:
    """A Markdown table a budget, best Fréchet distance first."""
    names = short_names(records)
    lines = heading(records)
    for budget in sorted({r["budget"] for r in records}):
        lines += ["", f"## At most {budget} network evaluations", ""]
        lines += [
            "| sampler | steps | NFE | Fréchet ↓ | precision ↑ | recall ↑ | class agreement ↑ | images/s |"
        ]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
        rows = [r for r in records if r["budget"] == budget]
        for r in sorted(rows, key=lambda r: r["metrics"].get("frechet", float("inf"))):
            name = f"`{names[r['key']['sampler']]}`"
            if r["reason"] is not None:
                lines.append(f"| {name} | | | not run: {r['reason'].replace('|', '/')} | | | | |")
                continue
            cells = [_number(r["metrics"].get(metric), metric) for metric in METRICS]
            speed = r["images_per_second"]
            cells.append("" if speed is None else f"{speed:.0f}")
            lines.append(f"| {name} | {r['key']['steps']} | {r['nfe']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if metric != "frechet" else f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"


def plot_nfe(records: Sequence[Record], path: Path) -> None:
    """Fréchet distance against NFE, both logarithmic; the names stand in the order of the lines' right ends.

    Models beside the samplers are stars with their names.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    swept, beside = of_samplers(records), [r for r in of_models(records) if r["reason"] is None]
    names = short_names(swept)
    lines = {
        spec: sorted(
            {(r["nfe"], r["metrics"]["frechet"]) for r in swept if r["key"]["sampler"] == spec and r["nfe"]}
        )
        for spec in names
    }
    figure, axes = plt.subplots(figsize=(11, 7), layout="constrained")
    styles = ("-", "--", ":")
    colours = len(COLOURS)
    ranked = sorted((spec for spec in lines if lines[spec]), key=lambda spec: -lines[spec][-1][1])
    for i, spec in enumerate(ranked):
        style = styles[i // colours % len(styles)]
        axes.loglog(
            *zip(*lines[spec], strict=True),
            style,
            marker="o",
            markersize=4,
            color=COLOURS[i % colours],
            label=names[spec],
        )
    for r in beside:
        place = r["nfe"], r["metrics"]["frechet"]
        axes.plot(*place, "*", color="black", markersize=12, zorder=3)
        name = r["key"]["model"]["name"]
        axes.annotate(name, place, xytext=(8, 4), textcoords="offset points", fontweight="bold")
    budgets = sorted({*(r["budget"] for r in swept), *(r["nfe"] for r in beside)})
    axes.set_xticks(budgets, [str(budget) for budget in budgets], minor=False)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="network evaluations a sample (NFE)", ylabel="Fréchet distance (lower is better)")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_triangle(records: Sequence[Record], budgets: Sequence[int], path: Path) -> None:
    """Recall against Fréchet distance, a panel a budget; a bubble's area is proportional to images/s.

    The numbers in the bubbles are places in Fréchet distance; the key is beside each panel. Those more than SHOWN times
    the best are off the panel and marked so in the key: the others would be one blot.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    names = short_names(records)
    done = [r for r in records if r["reason"] is None and r["budget"] in budgets]
    fastest = max((r["images_per_second"] or 0 for r in done), default=0)
    colours = {spec: COLOURS[i % len(COLOURS)] for i, spec in enumerate(sorted(names, key=names.__getitem__))}
    figure, panels = plt.subplots(
        len(budgets), 1, figsize=(12, 7 * len(budgets)), squeeze=False, layout="constrained"
    )
    for axes, budget in zip(panels[:, 0], budgets, strict=True):
        ranked = sorted((r for r in done if r["budget"] == budget), key=lambda r: r["metrics"]["frechet"])
        for place, r in enumerate(ranked, 1):
            spec, x, y = r["key"]["sampler"], r["metrics"]["frechet"], r["metrics"]["recall"]
            area = 900 * (r["images_per_second"] or 0) / fastest if fastest else 250
            beyond = x > SHOWN * ranked[0]["metrics"]["frechet"]
            label = f"{place}  {names[spec]}" + (f"  → {x:.3g}" if beyond else "")
            if beyond:
                axes.scatter([], [], s=20, alpha=0.5, color=colours[spec], label=label)
                continue
            axes.scatter(x, y, s=max(area, 20), alpha=0.5, color=colours[spec], label=label)
            axes.annotate(str(place), (x, y), fontsize=8, ha="center", va="center")
        axes.set(
            title=f"at most {budget} network evaluations", xlabel="quality: Fréchet distance (left is better)"
        )
        axes.set(xscale="log", ylabel="coverage: recall (up is better)")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.margins(0.1)
        axes.grid(alpha=0.3)
        key = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
        for handle in key.legend_handles:
            handle.set_sizes([40])
    figure.suptitle("Quality, coverage, speed" + (": a larger bubble is faster" if fastest else ""))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_comparison(records: Sequence[Record], path: Path) -> None:
    """Fréchet distance and recall against images/s, a panel each, of samplers at all budgets and of models.

    The points of a sampler are joined, the number of evaluations beside each; a model beside it is a star. Without
    images/s, 1/NFE stands in their place. Recall is on the scale of log(1 − recall).
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullLocator

    done = [r for r in records if r["reason"] is None]
    names = short_names(of_samplers(done))
    timed = all(r["images_per_second"] for r in done)
    figure, panels = plt.subplots(1, 2, figsize=(16, 7), layout="constrained")

    def place(r: Record, metric: str) -> tuple[float, float]:
        found = r["metrics"][metric]
        across = r["images_per_second"] if timed else 1 / r["nfe"]
        return across, 1 - found if metric == "recall" else found

    for axes, metric in zip(panels, ("frechet", "recall"), strict=True):
        for number, (spec, name) in enumerate(sorted(names.items(), key=lambda entry: entry[1])):
            line = sorted(
                (r for r in of_samplers(done) if r["key"]["sampler"] == spec), key=lambda r: r["nfe"]
            )
            colour = COLOURS[number % len(COLOURS)]
            places = [place(r, metric) for r in line]
            axes.plot(*zip(*places, strict=True), "o-", color=colour, alpha=0.6, markersize=5, label=name)
            for r, at in zip(line, places, strict=True):
                axes.annotate(
                    str(r["nfe"]), at, xytext=(5, 4), textcoords="offset points", fontsize=7, color=colour
                )
        for r in of_models(done):
            at = place(r, metric)
            axes.plot(*at, "*", color="black", markersize=12, zorder=3)
            axes.annotate(
                r["key"]["model"]["name"],
                at,
                xytext=(8, -12),
                textcoords="offset points",
                fontsize=9,
                fontweight="bold",
            )
        axes.set(xscale="log", yscale="log", xlabel="speed: images/s" if timed else "speed: 1/NFE")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.2, y=0.12)
        axes.grid(alpha=0.3, which="both")
    quality, coverage = panels
    quality.set_ylabel("quality: Fréchet distance (lower is better)")
    quality.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    quality.yaxis.set_major_formatter("{x:g}")
    quality.yaxis.set_minor_locator(NullLocator())
    coverage.set_ylabel("coverage: recall (higher is better)")
    recalls = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
    coverage.yaxis.set_major_locator(FixedLocator([1 - value for value in recalls]))
    coverage.yaxis.set_major_formatter(FixedFormatter([f"{value:.0%}" for value in recalls]))
    coverage.yaxis.set_minor_locator(NullLocator())
    coverage.invert_yaxis()
    figure.suptitle("Quality and coverage against speed; NFE beside each mark")
    coverage.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(records: Sequence[Record], out: Path, stem: str, title: str, at: Sequence[int] = (10, 50)) -> Path:
    """Writes the page of records and its pictures; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    several = bool(of_models(records))
    text = f"# {title}\n\n" + (comparison(records) if several else tables(records))
    if len({r["budget"] for r in records}) > 1:
        curve, triangle = f"{stem}-nfe.png", f"{stem}-triangle.png"
        text += f"\n![Fréchet distance against NFE]({curve})\n"
        plot_nfe(records, out / curve)
        if all("recall" in r["metrics"] for r in records if r["reason"] is None):
            text += f"\n![Quality, coverage, speed]({triangle})\n"
            if several:
                plot_comparison(records, out / triangle)
            else:
                plot_triangle(records, at, out / triangle)
    page = out / f"{stem}.md"
    page.write_text(text, encoding="utf-8")
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tables and pictures of samplers.")
    parser.add_argument("records", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument(
        "--speed", type=Path, help="take images/s from this file, of a run on a quiet machine"
    )
    parser.add_argument("--stem", default="samplers", help="how the files' names begin")
    parser.add_argument("--at", type=int, action="append", help="NFE budget of a panel [default: 10 and 50]")
    options = parser.parse_args(arguments)
    records = read(options.records)
    if options.speed is not None:
        records = with_speed(records, read(options.speed))
    write(records, options.out, options.stem, "Samplers", options.at or [10, 50])
    return 0


if __name__ == "__main__":
    sys.exit(main())
