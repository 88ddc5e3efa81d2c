"""The losses on images that are not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Update, loss_and_scalars
from trilemma.machine.global_generators import seeded
from trilemma.numerics.step_keys import STREAMS, step_generator, step_key
from trilemma.train.examples import Reader
from trilemma.train.log_names import named
from trilemma.train.precision import Precision

# Streams of keys.
LOSS, GLOBAL = 7, 8


@torch.no_grad()
def validation_losses(
    modules: Mapping[str, nn.Module],
    updates: Sequence[Update],
    objective: Objective,
    reader: Reader,
    seed: int,
    batch_size: int,
    most: int,
    precision: Precision,
    device: torch.device,
) -> dict[str, float]:
    """Returns the mean of each update's loss, and of its other numbers, over the first `most` images, by name.

    The draws are keyed by (seed, batch, update), the same every time; the states of torch's global generators are
    restored.

    Args:
        modules: the model and the parts beside it, in evaluation mode.
        updates: of a step.
        reader: of the images.
    """
    count = min(most, len(reader.dataset))
    totals: dict[str, Tensor] = {}
    for number, indices in enumerate(torch.arange(count).split(batch_size)):
        with seeded(step_key(seed, number, GLOBAL), device):
            examples = reader.read(indices)
        for index, update in enumerate(updates):
            stream = STREAMS * index
            generator = step_generator(seed, number, LOSS + stream)
            with seeded(step_key(seed, number, GLOBAL + stream), device), precision.autocast():
                found = objective.update_loss(update, examples.step(modules, generator))
            loss, scalars = loss_and_scalars(found)
            for name, value in named(updates, update, {"loss": loss, **scalars}).items():
                added = torch.as_tensor(value).double().cpu() * len(indices)
                totals[name] = totals[name] + added if name in totals else added
    return {f"validation_{name}": float(total / count) for name, total in totals.items()}
