"""The loss on images that are not trained on."""

from __future__ import annotations

import torch

from trilemma.errors import DataError
from trilemma.interfaces.dataset import Dataset, Subset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective
from trilemma.machine.global_generators import seeded
from trilemma.train.conditions import conditions_of
from trilemma.train.data_order import step_generator, step_key
from trilemma.train.precision import Precision

# Streams of keys.
HELD_OUT, LOSS, GLOBAL = 6, 7, 8


def held_out(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Returns the part to train on and the part that is held out.

    Of N originals, those at the first round(f N) places, at least one, of the permutation of the seed are held out:
    themselves to measure on, and all their mirrored or cropped views from training.

    Raises:
        DataError: where nothing is left to train on.
    """
    originals = len(dataset) // dataset.copies
    count = max(1, round(fraction * originals))
    if count >= originals:
        raise DataError(
            f"{originals} images cannot be divided into a part to train on and {fraction:g} of them held out; "
            "set validation.fraction = 0"
        )
    chosen = torch.randperm(originals, generator=step_generator(seed, 0, HELD_OUT))[:count].sort().values
    kept = torch.ones(originals, dtype=torch.bool)
    kept[chosen] = False
    rest = kept.repeat(dataset.copies).nonzero().flatten()
    return Subset(dataset, rest), Subset(dataset, chosen)


@torch.no_grad()
def validation_loss(
    denoiser: Denoiser,
    dataset: Dataset,
    objective: Objective,
    seed: int,
    batch_size: int,
    most: int,
    precision: Precision,
    device: torch.device,
) -> float:
    """Returns the mean loss over the first `most` images, with the same draws every time.

    The draws are keyed by (seed, batch); torch's global generators are put back as they were.
    """
    count = min(most, len(dataset))
    total = torch.zeros((), dtype=torch.float64)
    for number, indices in enumerate(torch.arange(count).split(batch_size)):
        with seeded(step_key(seed, number, GLOBAL), device), precision.autocast():
            x0, labels = dataset.batch(indices)
            loss = objective.loss(
                denoiser,
                denoiser,
                x0.to(device),
                conditions_of(denoiser, labels, device),
                step_generator(seed, number, LOSS),
            )
        total += loss.double().cpu() * len(indices)
    return float(total / count)
