"""Train the classifier of noisy digits on the 60,000 training images of MNIST.

    python -m trilemma_plugins.guidances.train_classifier --out plugins/trilemma_plugins/guidances/weights

Every image is noised by the process of the bundled model `mnist` at a time drawn uniformly. The schedule is fixed
beforehand and the last step's weights are the result: the test images are read once, after training, to report the
accuracy by noise level, and nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import TextIO

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy

from trilemma import lookup
from trilemma.interfaces.process import Process
from trilemma.models.construction import Constructing
from trilemma_plugins.guidances.network import NoisyDigitNetwork

PROCESS = "vp:schedule=cosine,T=1000"

CARD = """\
format = 1

[model]
name = "mnist-classifier"
kind = "classifier"
summary = "classifier of noised handwritten digits"
licence = "Apache-2.0"

[classifier]
spec = "noisy-digit-network"

[process]
spec = "{process}"

[data]
shape = [1, 28, 28]
range = [-1.0, 1.0]
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[weights]
file = "weights.safetensors"
sha256 = "{sha256}"

[provenance]
data = "MNIST, the 60,000 training images"
command = "{command}"
seed = {seed}
epochs = {epochs}

[provenance.test_accuracy]
{accuracy}
"""


def noised(images: Tensor, process: Process, t: Tensor, generator: torch.Generator) -> Tensor:
    """Returns z_t [B, 1, 28, 28] of images (uint8) at times t [B]."""
    alpha, sigma = (entry.float().view(-1, 1, 1, 1) for entry in (process.alpha(t), process.sigma(t)))
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float32)
    return alpha * (images.float() / 127.5 - 1) + sigma * noise


def train(
    images: Tensor, labels: Tensor, *, epochs: int, batch: int, rate: float, seed: int, log: TextIO
) -> NoisyDigitNetwork:
    """Trains by AdamW under a one-cycle learning rate; prints a JSON line of loss and accuracy every 50 steps."""
    generator = torch.Generator().manual_seed(seed)
    process, _ = lookup.build("process", PROCESS)
    with Constructing(seed):
        network = NoisyDigitNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    a_pass = len(images) // batch
    steps = epochs * a_pass
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=0.2)
    began, total, right, seen = time.perf_counter(), 0.0, 0, 0
    for step in range(steps):
        if step % a_pass == 0:
            order = torch.randperm(len(images), generator=generator)
        chosen = order[step % a_pass * batch :][:batch]
        t = (torch.randint(0, 1000, (batch,), generator=generator) + 1).double() / 1000
        logits = network(noised(images[chosen], process, t, generator), t.float())
        loss = cross_entropy(logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen += batch
        total += loss.item() * batch
        right += int((logits.argmax(1) == labels[chosen]).sum())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            line = {
                "step": step + 1,
                "epoch": step // a_pass,
                "loss": round(total / seen, 5),
                "train_accuracy": round(right / seen, 5),
                "learning_rate": schedule.get_last_lr()[0],
                "seconds": round(time.perf_counter() - began, 2),
            }
            print(json.dumps(line), file=log, flush=True)
            total, right, seen = 0.0, 0, 0
    return network.eval()


def accuracy_by_level(network: NoisyDigitNetwork, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns the fraction of test images that are classified rightly at t = 0, 0.1, …, 1."""
    process, _ = lookup.build("process", PROCESS)
    generator = torch.Generator().manual_seed(1)
    found = {}
    with torch.inference_mode():
        for level in range(11):
            right = 0
            for start in range(0, len(images), 500):
                chosen = images[start : start + 500]
                t = torch.full((len(chosen),), level / 10, dtype=torch.float64)
                logits = network(noised(chosen, process, t, generator), t.float())
                right += int((logits.argmax(1) == labels[start : start + 500]).sum())
            found[f"{level / 10:.1f}"] = right / len(images)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier of noisy MNIST digits.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights, the card and the log"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--rate", type=float, default=3e-3)
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
        weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
        # The accuracy that is reported is that of the shipped weights.
        network.load_state_dict(weights)
        scores = accuracy_by_level(network, test.images, test.labels)
        print(
            json.dumps({"test_accuracy": scores, "parameters": sum(w.numel() for w in weights.values())}),
            file=log,
        )
    blob = save(weights)
    (options.out / "weights.safetensors").write_bytes(blob)
    command = (
        f"python -m trilemma_plugins.guidances.train_classifier --out {options.out.as_posix()} "
        f"--epochs {options.epochs} --batch {options.batch} --rate {options.rate} --seed {options.seed}"
    )
    card = CARD.format(
        process=PROCESS,
        sha256=hashlib.sha256(blob).hexdigest(),
        command=command,
        seed=options.seed,
        epochs=options.epochs,
        accuracy="\n".join(f'"t={level}" = {score:.4f}' for level, score in scores.items()),
    )
    (options.out / "model.toml").write_text(card, encoding="utf-8")
    print(f"test accuracy by time: {scores}")


if __name__ == "__main__":
    main()
