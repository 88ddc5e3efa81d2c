"""Train the feature network of colour images on a labelled data set of ten classes.

    python -m trilemma_plugins.metrics.train_image_features \\
        --train images:root=cifar10-train.zip --test images:root=cifar10-test.zip --out FOLDER

The schedule is fixed beforehand and the last step's weights are the result: the test images are read once,
after training, to report the accuracy, and nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trilemma import lookup
from trilemma_plugins.metrics.image_network import NAMES, SIDE, ImageNetwork
from trilemma_plugins.metrics.network import accuracy
from trilemma_plugins.metrics.training import fit, rounded, write_network

SHIFT = 4


def batches(
    images: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch in random order; an image is flipped or not and shifted by up to four reflected pixels."""
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        pixels = images[chosen].float() / 127.5 - 1
        padded = pad(pixels, (SHIFT,) * 4, mode="reflect")
        shift = torch.randint(0, 2 * SHIFT + 1, (2, size, 1, 1), generator=generator)
        flipped = torch.rand(size, 1, 1, generator=generator) < 0.5
        side = torch.arange(SIDE)
        rows = side.view(1, -1, 1) + shift[0]
        columns = torch.where(flipped, side.flip(0).view(1, 1, -1), side.view(1, 1, -1)) + shift[1]
        moved = padded[torch.arange(size).view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2)
        yield moved, labels[chosen]


class Logits(nn.Module):
    """Answers with the logits of an `ImageNetwork` alone."""

    def __init__(self, network: ImageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the feature network of colour images.")
    parser.add_argument("--train", required=True, help="spec of the training set")
    parser.add_argument("--test", required=True, help="spec of the test set")
    parser.add_argument("--data", default="", help="how the card names the data")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights, the card and the log"
    )
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    training, _ = lookup.build("dataset", options.train)
    test, _ = lookup.build("dataset", options.test)
    options.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = ImageNetwork(normalised=True)
    images = training.read(torch.arange(len(training)))
    with open(options.out / "train.jsonl", "w", encoding="utf-8") as log:
        fit(
            Logits(network),
            lambda: batches(images, training.labels, options.batch, generator),
            epochs=options.epochs,
            steps=len(images) // options.batch,
            rate=options.rate,
            weight_decay=0.05,
            smoothing=0.1,
            log=log,
        )
        plain = network.folded()
        weights = rounded(plain)
        score = accuracy(plain, test.read(torch.arange(len(test))), test.labels)
        size = sum(weight.numel() for weight in weights.values())
        print(json.dumps({"test_accuracy": score, "parameters": size}), file=log)
    card: dict[str, dict[str, object]] = {
        "model": {
            "name": "image-features",
            "kind": "features",
            "summary": "penultimate activations of a classifier of ten kinds of animals and vehicles, 192 features",
            "licence": "Apache-2.0",
        },
        "features": {"spec": "image-network"},
        "data": {"shape": [3, SIDE, SIDE], "range": [-1.0, 1.0], "classes": list(NAMES)},
        "provenance": {
            "data": options.data or options.train,
            "test_accuracy": score,
            "command": (
                f"python -m trilemma_plugins.metrics.train_image_features --train {options.train} "
                f"--test {options.test} --epochs {options.epochs} --batch {options.batch} --rate {options.rate} "
                f"--seed {options.seed}"
            ),
        },
    }
    write_network(options.out, weights, card)
    print(f"test accuracy {score:.4f}, {size} weights")


if __name__ == "__main__":
    main()
