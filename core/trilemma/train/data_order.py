"""The order of the data: the examples of a step are a pure function of the seed and the step."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.numerics.step_keys import step_generator


class DataOrder:
    """Shuffled epochs without replacement; the last, incomplete batch of an epoch is left out.

    Step k reads the batch k mod m of epoch ⌊k/m⌋, m = ⌊length/batch⌋, so the position in the data is the step
    itself and a resumed run reads on where it stopped. Process r of R takes every R-th example of the batch.

    Raises:
        UsageError: where the data set is smaller than a batch or the batch does not divide among the processes.
    """

    def __init__(self, length: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if length < batch:
            raise UsageError(f"batch_size = {batch} exceeds the {length} examples of the data set; lower it")
        if batch % world:
            raise UsageError(
                f"batch_size = {batch} does not divide among {world} processes; use a multiple of it"
            )
        self.length, self.batch, self.seed, self.rank, self.world = length, batch, seed, rank, world
        self.steps_per_epoch = length // batch
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Tensor:
        """Returns the indices [batch / world] into the data set for one step (int64)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = step_generator(self.seed, epoch, stream=1)
            self._permutation = torch.randperm(self.length, generator=generator)
            self._epoch = epoch
        batch = self._permutation[position * self.batch : (position + 1) * self.batch]
        return batch[self.rank :: self.world]
