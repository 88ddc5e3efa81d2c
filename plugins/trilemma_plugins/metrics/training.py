"""Training of the classifiers whose activations are features: one loop, one way of writing the result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trilemma.models.card import card_text

Batches = Iterator[tuple[Tensor, Tensor]]


def fit(
    network: nn.Module,
    epoch_of_batches: Callable[[], Batches],
    *,
    epochs: int,
    steps: int,
    rate: float,
    weight_decay: float,
    smoothing: float,
    log: TextIO,
) -> None:
    """Trains a classifier by AdamW under a one-cycle learning rate, in place.

    Args:
        network: answers images [B, C, H, W] with logits [B, classes].
        epoch_of_batches: gives the batches (images in [-1, 1], labels) of the next epoch.
        epochs, steps: number of epochs, and of batches an epoch.
        rate: largest learning rate.
        smoothing: of the labels.
        log: receives a JSON line of loss and training accuracy every 50 steps.
    """
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
    total = epochs * steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=total, pct_start=0.2)
    began, step, loss_sum, right, seen = time.perf_counter(), 0, 0.0, 0, 0
    for epoch in range(epochs):
        for pixels, classes in epoch_of_batches():
            logits = network(pixels.to(memory_format=torch.channels_last))
            loss = cross_entropy(logits, classes, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step, seen = step + 1, seen + len(classes)
            loss_sum += loss.item() * len(classes)
            right += int((logits.argmax(1) == classes).sum())
            if step % 50 == 0 or step == total:
                line = {
                    "step": step,
                    "epoch": epoch,
                    "loss": round(loss_sum / seen, 5),
                    "train_accuracy": round(right / seen, 5),
                    "learning_rate": schedule.get_last_lr()[0],
                    "seconds": round(time.perf_counter() - began, 2),
                }
                print(json.dumps(line), file=log, flush=True)
                loss_sum, right, seen = 0.0, 0, 0


def rounded(network: nn.Module) -> dict[str, Tensor]:
    """Returns the weights in float16, and rounds the network's own to them, so that the reported accuracy is theirs."""
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    network.load_state_dict(weights)
    return weights


def write_network(out: Path, weights: dict[str, Tensor], card: dict[str, dict[str, object]]) -> None:
    """Writes `weights.safetensors` and `model.toml` into a folder; format and sha256 are filled in."""
    blob = save(weights)
    (out / "weights.safetensors").write_bytes(blob)
    (out / "model.toml").write_text(card_text(card, hashlib.sha256(blob).hexdigest()), encoding="utf-8")
