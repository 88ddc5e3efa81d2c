"""Train the feature network on the 60,000 training images of MNIST.

    python -m trilemma_plugins.metrics.train_features --out plugins/trilemma_plugins/metrics/weights

The schedule is fixed beforehand and the last step's weights are the result: the test images are read once,
after training, to report the accuracy, and nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from trilemma import lookup
from trilemma.models.construction import Constructing
from trilemma_plugins.metrics.network import NAMES, DigitNetwork, accuracy
from trilemma_plugins.metrics.training import fit, rounded, write_network


class NormalisedDigitNetwork(nn.Module):
    """The network as it is trained: every layer but the last is followed by a batch normalisation."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        with Constructing():
            plain = DigitNetwork()
        self.layers = nn.ModuleList([plain.conv1, plain.conv2, plain.conv3, plain.embed])
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(32), nn.BatchNorm2d(48), nn.BatchNorm2d(96), nn.BatchNorm1d(64)]
        )
        self.classify = plain.classify
        for layer in (*self.layers, self.classify):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        h = images
        for layer, norm in zip(self.layers[:3], self.norms[:3], strict=True):
            h = max_pool2d(relu(norm(layer(h))), 2)
        return self.classify(relu(self.norms[3](self.layers[3](h.flatten(1)))))

    def folded(self) -> DigitNetwork:
        """Returns the plain network that computes the same function with the running statistics."""
        self.eval()
        # Every layer is replaced, so that no initial weights are drawn.
        with torch.device("meta"):
            network = DigitNetwork().eval()
        network.conv1, network.conv2, network.conv3 = (
            fuse_conv_bn_eval(layer, norm)
            for layer, norm in zip(self.layers[:3], self.norms[:3], strict=True)
        )
        network.embed = fuse_linear_bn_eval(self.layers[3], self.norms[3])
        network.classify = self.classify
        return network.requires_grad_(False)


def batches(
    images: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch in random order; every image is shifted by up to two pixels each way over background."""
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        padded = pad(images[chosen, 0], (2, 2, 2, 2))
        shift = torch.randint(0, 5, (2, size, 1, 1), generator=generator)
        rows = torch.arange(28).view(1, 28, 1) + shift[0]
        columns = torch.arange(28).view(1, 1, 28) + shift[1]
        shifted = padded[torch.arange(size).view(-1, 1, 1), rows, columns].unsqueeze(1)
        yield shifted.float() / 127.5 - 1, labels[chosen]


def train(
    images: Tensor, labels: Tensor, *, epochs: int, batch: int, rate: float, seed: int, log: TextIO
) -> DigitNetwork:
    """Returns the network trained on images uint8 [N, 1, 28, 28]; `fit` says how."""
    generator = torch.Generator().manual_seed(seed)
    network = NormalisedDigitNetwork(generator)
    fit(
        network,
        lambda: batches(images, labels, batch, generator),
        epochs=epochs,
        steps=len(images) // batch,
        rate=rate,
        weight_decay=0.01,
        smoothing=0.0,
        log=log,
    )
    return network.folded()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the MNIST feature network.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights, the card and the log"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    training, _ = lookup.build("dataset", "mnist:split=train")
    test, _ = lookup.build("dataset", "mnist:split=test")
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "train.jsonl", "w", encoding="utf-8") as log:
        network = train(
            training.images,
            training.labels,
            epochs=options.epochs,
            batch=options.batch,
            rate=options.rate,
            seed=options.seed,
            log=log,
        )
        weights = rounded(network)
        score = accuracy(network, test.images, test.labels)
        print(
            json.dumps({"test_accuracy": score, "parameters": sum(w.numel() for w in weights.values())}),
            file=log,
        )
    command = (
        f"python -m trilemma_plugins.metrics.train_features --out {options.out.as_posix()} "
        f"--epochs {options.epochs} --batch {options.batch} --rate {options.rate} --seed {options.seed}"
    )
    card: dict[str, dict[str, object]] = {
        "model": {
            "name": "mnist-features",
            "kind": "features",
            "summary": "penultimate activations of a classifier of handwritten digits, 64 features",
            "licence": "Apache-2.0",
        },
        "features": {"spec": "digit-network"},
        "data": {"shape": [1, 28, 28], "range": [-1.0, 1.0], "classes": list(NAMES)},
        "provenance": {
            "data": "MNIST, the 60,000 training images",
            "test_accuracy": score,
            "command": command,
            "seed": options.seed,
            "epochs": options.epochs,
        },
    }
    write_network(options.out, weights, card)
    print(f"test accuracy {score:.4f}")


if __name__ == "__main__":
    main()
