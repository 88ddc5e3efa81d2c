"""An upscaler on small pictures that are plain and that are degraded, beside bicubic enlargement and a plain one.

    python benchmarks/upscaling.py emoji-4x --plain runs/emoji-4x-plain/model
    python benchmarks/upscaling.py runs/a/model -n 16 --steps 2 --out out --picture out/upscaled.png

The upscaler is measured on the test images of its data set, resized (`bicubic-antialias`) and degraded (as those that
it was trained on); so is --plain, the same network trained on the resized ones. psnr, ssim and perceptual compare each
picture with the true one, frechet all of them with all true ones, as `trilemma eval --reference test` does.

Measurements are appended to OUT/upscaling.jsonl as they come, and what is there is not measured again. OUT/upscaling.md
has the table. --picture gets a row a picture: small, bicubic, --plain, the upscaler, the true one. Then it says how the
numbers compare with the goals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measurements import Measurements
from quality import Goal

METRICS = ("psnr", "ssim", "perceptual", "frechet")
PLAIN, DEGRADED = "plain", "degraded"
RESIZED = "bicubic-antialias"
# Decibels above bicubic enlargement.
BETTER = 1.5


def data_of(card: Mapping[str, Any], by: str | None = None) -> str:
    """Returns the data set that a model was trained on, without its split and copies, degraded another way if asked.

    Raises:
        SystemExit: for a model of other data.
    """
    from trilemma.registry.spec import format_spec, parse_spec

    found = parse_spec(card.get("data", {}).get("dataset", "none"))
    if found.name.rpartition("/")[2] != "degraded":
        raise SystemExit("the model was not trained on a data set `degraded`; give another")
    options = {key: value for key, value in found.options.items() if key not in ("split", "copies")}
    return format_spec(found.name, {**options, **({} if by is None else {"by": by})})


class Measured:
    """The measurements of one upscaler or two, kept in a file.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        import trilemma

        self.options = options
        names = {"the upscaler": options.model, "trained on plain pictures": options.plain}
        self.models = {title: trilemma.load(name, fused=True) for title, name in names.items() if name}
        card = self.models["the upscaler"].card
        self.data = {PLAIN: data_of(card, RESIZED), DEGRADED: data_of(card)}
        self.kept = Measurements(options.out / "upscaling.jsonl", complete=options.table)

    def __call__(self, title: str, kind: str) -> Mapping[str, Any]:
        """Returns the record of a model on small pictures of a kind, measured now or found in the file."""
        from trilemma import Request
        from trilemma.evaluate import Evaluator, evaluate

        asked, model = self.options, self.models[title]
        evaluator = Evaluator.of(
            model,
            self.data[kind],
            asked.features,
            asked.metric or METRICS,
            reference="test",
        )
        key = {
            "weights": model.card["weights"]["sha256"],
            "n": asked.n,
            "seed": asked.seed,
            "steps": asked.steps,
            "sampler": asked.sampler,
            **evaluator.describe(),
        }

        def measured() -> Mapping[str, Any]:
            print(f"{title}, {kind} pictures, n={asked.n}", file=sys.stderr, flush=True)
            request = Request(
                model,
                asked.n,
                sampler=asked.sampler,
                steps=asked.steps,
                seed=asked.seed,
                batch_size=asked.batch_size,
                progress=sys.stderr.isatty(),
            )
            record = evaluate(request, evaluator)
            return {name: record[name] for name in ("metrics", "enlarged", "nfe", "features", "n")}

        return self.kept.of(key, f"{title}, {kind} pictures", measured)


def table(measure: Measured) -> str:
    """Returns the table in Markdown."""
    from trilemma import lookup

    names = measure.options.metric or METRICS
    arrows = ["↓" if lookup.build("metric", name)[0].lower_is_better else "↑" for name in names]
    lines = [
        f"# `{measure.models['the upscaler'].card['model']['name']}` beside bicubic enlargement",
        "",
        "| small pictures | enlarged by | "
        + " | ".join(f"{name} {arrow}" for name, arrow in zip(names, arrows, strict=True))
        + " | NFE |",
        "|---|---|" + "---:|" * (len(names) + 1),
    ]
    record: Mapping[str, Any] = {}
    for kind in (PLAIN, DEGRADED):
        for title in reversed(measure.models):
            record = measure(title, kind)
            rows = [(title, record["metrics"], record["nfe"])]
            if title == list(measure.models)[-1]:
                rows.insert(0, (record["enlarged"]["by"], record["enlarged"]["metrics"], ""))
            for by, metrics, nfe in rows:
                cells = [f"{metrics[name]:.4g}" for name in names]
                lines.append(f"| {kind} | {by} | {' | '.join(cells)} | {nfe} |")
    caption = (
        f"{record['n']:,} test pictures, seed {measure.options.seed}, features {record['features']}; plain: "
        f"`{measure.data[PLAIN]}`, degraded: `{measure.data[DEGRADED]}`. Made by `python benchmarks/upscaling.py`."
    )
    return "\n".join([*lines, "", caption, ""])


def goals(measure: Measured) -> Iterator[Goal]:
    """What degradation is for: better than bicubic on plain pictures, and than the plain network on degraded ones."""
    own = measure("the upscaler", PLAIN)
    ratio, bicubic = (float(found["metrics"]["psnr"]) for found in (own, own["enlarged"]))
    yield Goal(
        f"PSNR on plain pictures, against bicubic + {BETTER:g} dB", ratio, bicubic + BETTER, at_most=False
    )
    distance, other = (float(found["metrics"]["perceptual"]) for found in (own, own["enlarged"]))
    yield Goal("perceptual distance on plain pictures, against bicubic", distance, other)
    if len(measure.models) > 1:
        here, there = (float(measure(title, DEGRADED)["metrics"]["frechet"]) for title in measure.models)
        yield Goal("Fréchet distance on degraded pictures, against the plain network", here, there)


def picture(measure: Measured) -> None:
    """Draws a row a picture: small, bicubic, each model, the true one."""
    import torch

    import trilemma
    from trilemma.evaluate.evaluator import pixels_of
    from trilemma.numerics.resizing import resized
    from trilemma.output.atomic import replacing
    from trilemma.output.picture import encode_png, tile

    asked = measure.options
    data = trilemma.dataset(f"{measure.data[DEGRADED]},split=test")
    rows = torch.tensor(asked.index or [0, len(data) // 4, len(data) // 2, 3 * len(data) // 4])
    true, values = data.batch(rows)
    small = pixels_of(values["low"])
    size = (true.shape[2], true.shape[3])
    cells = [resized(small, size, "nearest"), resized(small, size, "bicubic")]
    for model in reversed(measure.models.values()):
        cond = {"low": small, **model.card.get("evaluation", {}).get("cond", {})}
        drawn = trilemma.sample(
            model, len(rows), cond=cond, seed=asked.seed, steps=asked.steps, sampler=asked.sampler
        )
        cells.append(drawn.samples)
    pixels = torch.stack([*cells, true], 1).flatten(0, 1)
    levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    record = {"data": measure.data[DEGRADED], "rows": rows.tolist(), "seed": asked.seed}
    asked.picture.parent.mkdir(parents=True, exist_ok=True)
    with replacing(asked.picture) as file:
        file.write(encode_png(tile(levels, len(cells) + 1, gap=4), record))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="An upscaler beside bicubic enlargement and a plain one.")
    parser.add_argument("model", nargs="?", default="emoji-4x", help="trained on degraded pictures")
    parser.add_argument("--plain", help="the same network trained on plain ones")
    parser.add_argument("--features", help="feature network [default: the model's, else one for images]")
    parser.add_argument("--metric", action="append", help=f"repeatable [default: {', '.join(METRICS)}]")
    parser.add_argument("-n", type=int, default=264, help="pictures; all test pictures of emoji are 264")
    parser.add_argument("--sampler", help="[default: the model's]")
    parser.add_argument("--steps", type=int, help="[default: the model's]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="measure nothing: tabulate OUT/upscaling.jsonl")
    parser.add_argument("--index", type=int, action="append", help="test picture of --picture, repeatable")
    parser.add_argument("--picture", type=Path, help="FILE.png for pictures before and after")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args(arguments)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    measure = Measured(options)
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(measure)
    (options.out / "upscaling.md").write_text(text, encoding="utf-8")
    print(text)
    if options.picture:
        picture(measure)
    if not set(METRICS) - set(options.metric or METRICS):
        for goal in goals(measure):
            print(goal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
