"""The loss on images that are not trained on."""

from __future__ import annotations

import torch

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective
from trilemma.machine.global_generators import seeded
from trilemma.numerics.step_keys import step_generator, step_key
from trilemma.train.conditions import ConditionSource
from trilemma.train.precision import Precision

# Streams of keys.
LOSS, GLOBAL = 7, 8


@torch.no_grad()
def validation_loss(
    denoiser: Denoiser,
    data: ConditionSource,
    objective: Objective,
    seed: int,
    batch_size: int,
    most: int,
    precision: Precision,
    device: torch.device,
) -> float:
    """Returns the mean loss over the first `most` images, with the same draws every time.

    The draws are keyed by (seed, batch); the states of torch's global generators are restored.
    """
    count = min(most, len(data.dataset))
    total = torch.zeros((), dtype=torch.float64)
    for number, indices in enumerate(torch.arange(count).split(batch_size)):
        with seeded(step_key(seed, number, GLOBAL), device), precision.autocast():
            x0, _ = data.dataset.batch(indices)
            loss = objective.loss(
                denoiser,
                denoiser,
                x0.to(device),
                data.take(indices),
                step_generator(seed, number, LOSS),
            )
        total += loss.double().cpu() * len(indices)
    return float(total / count)
