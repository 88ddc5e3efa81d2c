"""Digits drawn from captions: whether their class, boldness and slant are those that were asked for.

    trilemma train plugins/trilemma_plugins/mnist/recipes/mnist-captions.toml --out runs/mnist-captions --threads 1
    python benchmarks/mnist_captions.py --model runs/mnist-captions/model

writes OUT/mnist-captions.json and OUT/mnist-captions.md. All 90 combinations of digit, boldness and slant are asked
for equally often, so that samples which do not heed the caption agree with it as often as guesses do. Captions never
seen are in a phrasing that no caption of the training set has; of ten combinations the training set has no image.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trilemma
from trilemma import lookup
from trilemma.evaluate.evaluator import pixels_of, to_eight_bits
from trilemma_plugins.mnist.captions import missing_in_training
from trilemma_plugins.mnist.phrases import SEEN, UNSEEN, caption
from trilemma_plugins.mnist.strokes import BOLDNESS, SLANT, boldness, measures, slant

CHANCE = {"class": 1 / 10, "boldness": 1 / 3, "slant": 1 / 3, "all three": 1 / 90}


def asked(phrasings: tuple[str, ...], each: int) -> tuple[Tensor, list[str]]:
    """Digit, boldness and slant [N, 3] of every combination in every phrasing, `each` times, with their captions."""
    combinations = torch.cartesian_prod(torch.arange(10), torch.arange(3), torch.arange(3))
    wanted = combinations.repeat(len(phrasings) * each, 1)
    texts = [
        caption(phrasing, number, BOLDNESS[weight], side)
        for phrasing in phrasings * each
        for number, weight, side in combinations.tolist()
    ]
    return wanted, texts


def found(samples: Tensor) -> Tensor:
    """Digit, boldness and slant [N, 3] of images."""
    pixels = to_eight_bits(samples)
    logits = lookup.metric("mnist-features").observe(pixels_of(pixels)).logits
    thick, lean = measures(pixels)
    return torch.stack([logits.argmax(1), boldness(thick), slant(lean)], 1)


def agreement(right: Tensor) -> dict[str, tuple[float, float]]:
    """The fraction of samples that agree with their caption, and half of its 95 % interval."""
    columns = {**dict(zip(("class", "boldness", "slant"), right.T, strict=True)), "all three": right.all(1)}
    answers = {}
    for name, column in columns.items():
        rate = float(column.double().mean())
        answers[name] = (rate, 1.96 * math.sqrt(max(rate * (1 - rate), 1 / len(right)) / len(right)))
    return answers


def measured(model: Any, options: argparse.Namespace, guidance: float) -> dict[str, Any]:
    """The agreement of samples at a guidance scale, for each kind of caption."""
    rows: dict[str, Any] = {}
    for name, phrasings in (("seen", SEEN[: len(UNSEEN)]), ("never seen", UNSEEN)):
        wanted, texts = asked(phrasings, options.each)
        drawn = trilemma.sample(
            model,
            len(texts),
            cond={"text": texts},
            guidance=f"cfg:scale={guidance}",
            sampler=options.sampler,
            steps=options.steps,
            seed=options.seed,
            batch_size=250,
        )
        right = found(drawn.samples) == wanted
        new = missing_in_training(*wanted.T)
        parts = {"seen": ~new, "never seen": new} if phrasings is UNSEEN else {"seen": ~new}
        for kind, chosen in parts.items():
            title = f"phrasing {name}, combination {kind}"
            rows[title] = {"samples": int(chosen.sum()), **agreement(right[chosen])}
        rows.setdefault("by value", {})[name] = _confused(wanted, right)
    return rows


def _confused(wanted: Tensor, right: Tensor) -> dict[str, float]:
    """Agreement in each class, and of each grade, with its own attribute."""
    answers = {f"digit {d}": float(right[wanted[:, 0] == d, 0].double().mean()) for d in range(10)}
    for column, names in ((1, BOLDNESS), (2, SLANT)):
        for place, name in enumerate(names):
            answers[name] = float(right[wanted[:, column] == place, column].double().mean())
    return answers


def table(record: dict[str, Any]) -> str:
    head = "| captions | guidance scale | samples | class | boldness | slant | all three |"
    lines = [head, "|---|---:|---:|---:|---:|---:|---:|"]
    lines.append(f"| guesses | | | {' | '.join(f'{100 * value:.1f} %' for value in CHANCE.values())} |")
    for scale, rows in record["agreement"].items():
        for title, row in rows.items():
            if title == "by value":
                continue
            values = [f"{100 * row[name][0]:.1f} ± {100 * row[name][1]:.1f} %" for name in CHANCE]
            lines.append(f"| {title} | {scale} | {row['samples']:,} | {' | '.join(values)} |")
    return "\n".join(lines)


def page(record: dict[str, Any]) -> str:
    made = record["model"]
    return f"""# MNIST from captions

Samples of `{made["name"]}` ({made["steps"]:,} steps of {made["batch_size"]}; {record["sampler"]}, {record["steps"]}
steps) whose class, boldness and slant are those of the caption, such as "a bold seven, leaning left". The class is that
which the classifier `mnist-features` sees; boldness and slant are measured from the pixels as on the training images
(plugin `mnist`). Every combination is asked for equally often; ± is half the 95 % interval.

{table(record)}

Made by `python benchmarks/mnist_captions.py --model runs/mnist-captions/model`; the model by
`trilemma train plugins/trilemma_plugins/mnist/recipes/mnist-captions.toml --out runs/mnist-captions --threads 1`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument("--each", type=int, default=2, help="samples of each combination in each phrasing")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0], help="of guidance")
    parser.add_argument("--sampler", default="ddim:clip=1.0")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    started = time.monotonic()
    model = trilemma.load(options.model)
    card = model.card or {}
    made = card.get("provenance", {})
    record = {
        "model": {"name": card["model"]["name"], "sha256": card["weights"]["sha256"], **made},
        "sampler": options.sampler,
        "steps": options.steps,
        "seed": options.seed,
        "agreement": {f"{scale:g}": measured(model, options, scale) for scale in options.scales},
    }
    record |= {"threads": torch.get_num_threads(), "seconds": round(time.monotonic() - started)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "mnist-captions.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    (options.out / "mnist-captions.md").write_text(page(record))
    print(table(record))


if __name__ == "__main__":
    main()
