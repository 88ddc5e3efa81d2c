"""The held-out part of a data set, which is not trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.errors import DataError
from trilemma.interfaces.dataset import Dataset, Subset
from trilemma.numerics.step_keys import step_generator

# Stream of keys, beside those of `trilemma.train.validation` and of the trainer.
HELD_OUT = 6


def originals(dataset: Dataset) -> int:
    """Returns how many images a data set has without their mirrored or cropped views."""
    return len(dataset) // dataset.copies


def held_out_indices(count: int, fraction: float, seed: int) -> Tensor:
    """Returns which of N = `count` originals are held out, sorted: int64 [max(1, round(f N))].

    They come first in the permutation that the seed decides.

    Raises:
        DataError: where nothing is left to train on.
    """
    out = max(1, round(fraction * count))
    if out >= count:
        raise DataError(
            f"{count} images cannot be divided into a part to train on and {fraction:g} of them held out; "
            "set validation.fraction = 0"
        )
    return torch.randperm(count, generator=step_generator(seed, 0, HELD_OUT))[:out].sort().values


def held_out(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Returns the part to train on and the part that is held out, the originals of `held_out_indices`.

    The loss is measured on these originals, and none of their mirrored or cropped views is trained on.

    Raises:
        DataError: where nothing is left to train on.
    """
    count = originals(dataset)
    chosen = held_out_indices(count, fraction, seed)
    kept = torch.ones(count, dtype=torch.bool)
    kept[chosen] = False
    return Subset(dataset, kept.repeat(dataset.copies).nonzero().flatten()), Subset(dataset, chosen)
