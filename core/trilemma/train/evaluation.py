"""The measurement with which a run ends: the samples of the written model, by its recipe's [evaluation]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from trilemma.engine.request import Request
from trilemma.evaluate import Evaluator, check_request, evaluate, evaluate_model, load_measured
from trilemma.interfaces.denoiser import Denoiser

PREFIX = "evaluation_"
# Samples in one call of the network.
_BATCH = 250


def check_evaluation(model: Denoiser, n: int) -> None:
    """Checks that the samples of a model could be measured as its card says; reads the data set, draws nothing.

    Raises:
        TrilemmaError: where they could not.
    """
    evaluator = Evaluator.of(model)
    evaluator.check(model)
    if evaluator.of_samples:
        check_request(Request(model, n), evaluator)


def evaluated(model: Path, n: int, seed: int, device: torch.device) -> dict[str, float]:
    """Returns the numbers of an evaluation, for the log: of n samples by the sampler, steps and guidance of the card.

    They are those of `trilemma eval MODEL -n N --seed SEED`. Training images are the reference at most, and never
    among what is measured.

    Args:
        model: directory of a model.
        n: samples.
        seed: of the samples.
        device: to draw them on.

    Raises:
        TrilemmaError: as `trilemma.evaluate.evaluate` does.
    """
    network, evaluator = load_measured(model, device=device)
    if not evaluator.of_samples:
        record = evaluate_model(network, evaluator, n=n, batch_size=_BATCH, seed=seed)
    else:
        record = evaluate(Request(network, n, batch_size=_BATCH, seed=seed), evaluator)
    found: dict[str, Any] = dict(record["metrics"])
    for metric, terms in record["of_the_model"].items():
        found |= {f"{metric}_{term}": value for term, value in terms.items()}
    found |= {name: record.get(name) for name in ("nfe", "images_per_second")}
    return {
        PREFIX + re.sub(r"\W+", "_", name).strip("_"): float(value)
        for name, value in found.items()
        if isinstance(value, int | float)
    }
