"""Guidance by words: agreement with the captions against diversity, over guidance scales, and a grid of captions.

    python benchmarks/text_agreement.py
    python benchmarks/text_agreement.py --model runs/emoji/model --features runs/emoji-features/model \\
        --network runs/emoji-words/model --split test-combination --out out

Of `--captions` captions of the split, each in the style that it has there, `--each` pictures are drawn at every scale
with the same seeds. Agreement is `text-agreement`. Diversity is the mean distance of pictures of one caption in the
features, divided by that of real pictures of all these captions. Writes OUT/text-agreement-SPLIT.json, .md, -curve.png
and -grid.png, which has one picture of each caption. Needs the extras text and bench, and the distribution in
examples/trilemma-emoji.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

mpl.use("agg")
from matplotlib import pyplot as plt

import trilemma
from trilemma.evaluate import Evaluator
from trilemma.evaluate.evaluator import Batch, feature_network, pixels_of, to_eight_bits

SIDE = 6


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws, measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--features", default="emoji-features")
    parser.add_argument("--network", default="emoji-words")
    parser.add_argument("--dataset", default="images:root=emoji.zip")
    parser.add_argument("--split", default="train")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--shown", type=float, default=4.0, help="scale of the grid, one of --scales")
    parser.add_argument("--captions", type=int, default=SIDE**2)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--among", type=int, default=100)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args(arguments)
    if options.captions < 1 or options.each < 2 or options.shown not in options.scales:
        parser.error("give a caption, two pictures of each, and a --shown that is one of --scales")
    record, grid = measured(options)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"text-agreement-{options.split}"
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    stem.with_suffix(".md").write_text(table(record))
    curve(record, stem.with_name(f"{stem.name}-curve.png"))
    captioned(grid, record["captions"], stem.with_name(f"{stem.name}-grid.png"))
    print(table(record))


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], Tensor]:
    """The figures of every scale, and the pictures uint8 [captions, C, H, W] of the grid."""
    spec = f"text-agreement:network='{options.network}',among={options.among}"
    evaluator = Evaluator(options.dataset, options.features, (spec,), measured=options.split)
    network = feature_network(options.features, ())
    data = evaluator.split(options.split)
    rows = torch.arange(options.captions) * len(data.labels) // options.captions
    told = {name: data.columns[name].known(rows) for name in ("text", "style")}
    told["style"] = [data.columns["style"].classes[label] for label in told["style"]]
    model = trilemma.load(options.model, fused=True)
    # Each caption `each` times, one after the other.
    cond = {name: [value for value in values for _ in range(options.each)] for name, values in told.items()}
    apart = spread(network.observe(pixels_of(data.read(rows))).features[None])
    found, grid = [], torch.empty(0)
    for scale in options.scales:
        drawn = trilemma.sample(
            model,
            options.captions * options.each,
            cond=cond,
            guidance=f"cfg:scale={scale:g}",
            steps=options.steps,
            seed=options.seed,
            batch_size=options.batch_size,
        )
        images = to_eight_bits(drawn.samples)
        features = network.observe(pixels_of(images)).features.unflatten(0, (options.captions, options.each))
        (agreement,) = evaluator.measure([Batch(images, told={"text": cond["text"]})]).values()
        found.append({"scale": scale, "agreement": agreement, "diversity": spread(features) / apart})
        print(found[-1], flush=True)
        if scale == options.shown:
            grid = images[:: options.each]
    (real,) = evaluator.baseline["metrics"].values()
    record = {
        "model": drawn.provenance["model"],
        "sampler": drawn.provenance["sampler"],
        "steps": drawn.provenance["steps"],
        "features": network.identity,
        "network": options.network,
        "split": options.split,
        "among": options.among,
        "each": options.each,
        "scales": found,
        "real": {"agreement": real, "images": evaluator.baseline["images"]},
        "captions": [f"{text} ({style})" for text, style in zip(*told.values(), strict=True)],
        "shown": options.shown,
        "seed": options.seed,
    }
    return record, grid


def spread(features: Tensor) -> float:
    """The mean distance of two features of a group, of groups [G, N, D]."""
    return float(torch.stack([torch.pdist(group.double()).mean() for group in features]).mean())


def table(record: dict[str, Any]) -> str:
    """The figures in Markdown."""
    count, real = len(record["captions"]), record["real"]
    lines = [
        f"# Guidance by words: {record['model']['name']}, captions of {record['split']}",
        "",
        f"{count} captions, {record['each']} pictures of each, {record['sampler']}, {record['steps']} steps.",
        f"Agreement: the own caption fits best among {record['among']}; of {real['images']:,} real pictures it is",
        f"{real['agreement']:.1%}. Diversity: the mean distance of pictures of one caption in the features, divided by",
        "that of real pictures of all these captions.",
        "",
        "| scale | agreement | diversity |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['scale']:g} | {row['agreement']:.1%} | {row['diversity']:.3f} |" for row in record["scales"]
    ]
    return "\n".join([*lines, ""])


def curve(record: dict[str, Any], path: Path) -> None:
    """Draws agreement against diversity, a point a scale."""
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    points = [(row["diversity"], 100 * row["agreement"]) for row in record["scales"]]
    axes.plot(*zip(*points, strict=True), "o-")
    for row, point in zip(record["scales"], points, strict=True):
        axes.annotate(f"s = {row['scale']:g}", point, textcoords="offset points", xytext=(6, 4))
    axes.axhline(100 * record["real"]["agreement"], linestyle=":", color="grey", label="real pictures")
    axes.set(xlabel="diversity of one caption", ylabel="text agreement, %")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def captioned(images: Tensor, captions: Iterable[str], path: Path) -> None:
    """Draws pictures under their captions."""
    rows = -(-len(images) // SIDE)
    figure, places = plt.subplots(
        rows, SIDE, figsize=(1.7 * SIDE, 2 * rows), layout="constrained", squeeze=False
    )
    for axes in places.flat:
        axes.axis("off")
    for axes, image, caption in zip(places.flat, images, captions, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(caption, fontsize=6, wrap=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
