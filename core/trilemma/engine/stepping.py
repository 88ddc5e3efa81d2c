"""Sampling from outside: another library owns the loop and calls the network, the engine takes each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.loop import Loop
from trilemma.engine.program import Program
from trilemma.engine.request import Drawing, Request
from trilemma.engine.resolve import resolve
from trilemma.engine.signature import takes
from trilemma.errors import UsageError

# One batch holds all samples.
_ALL = 2**62


class Stepper:
    """Samples on their way, an evaluation of the network at a time, with the bits of `trilemma.sample`.

    Whoever owns the loop asks the network at `states`, `time` and `cond`, and hands its output to `step`:

        while not stepper.done:
            stepper.step(network(stepper.states, stepper.time, **stepper.cond))
        images = stepper.samples

    Args:
        request: the request to draw, by a sampler that has a plan.

    Attributes:
        times: time of each evaluation, in the sampler's order.
        steps: how many evaluations each step of the sampler has.
        row: how many evaluations are done.

    Rows without an evaluation are taken with the one before them.

    Raises:
        UsageError: for a sampler that runs steps of its own, or an impossible request.
    """

    def __init__(self, request: Drawing) -> None:
        given = {field.name: getattr(request, field.name) for field in fields(Drawing)}
        self._resolved = resolve(Request(**given, batch_size=_ALL))
        program = self._resolved.program
        if program is None:
            raise UsageError(
                f"{type(self._resolved.sampler).__name__} runs steps of its own and cannot be stepped from outside; "
                "give a sampler that has a plan"
            )
        self._program = program
        self._rows = program.evaluated_rows
        self.times, self.steps = (
            tuple(program.times[row] for row in self._rows),
            _evaluations_of_steps(program),
        )
        indices = torch.tensor(list(self._resolved.indices), dtype=torch.int64, device=self._resolved.device)
        latent = self._resolved.request.latent
        if latent is not None:
            latent = latent.to(self._resolved.device, self._resolved.dtype)
        self._loop = self._resolved.loop(Loop, len(indices))
        with torch.no_grad():
            self._batch = self._resolved.batch(indices, latent)
        self.restart()

    def restart(self) -> None:
        """Goes back to before the first evaluation."""
        self.row = 0
        with torch.no_grad():
            self._loop.begin(self._batch)
            self._run_silent_rows(0)

    def _run_silent_rows(self, row: int) -> None:
        """Takes the rows without an evaluation from `row` on."""
        while row < len(self._program) and not self._program.slots[row].evaluated:
            self._loop.row(row)
            row += 1

    @property
    def done(self) -> bool:
        """True once all evaluations are done."""
        return self.row == len(self.times)

    @property
    def time(self) -> float:
        """The time of the next evaluation; after the last one, that of the samples."""
        return self._program.end_time if self.done else self.times[self.row]

    @property
    def branches(self) -> int:
        """The number of branches of the guidance in the next evaluation, one after the other on dim 0."""
        return 1 if self.done else self._program.slots[self._rows[self.row]].evaluated

    @property
    def state(self) -> Tensor:
        """The state [n, K·C, ...] as it is now, a tensor of its own."""
        return self._loop.current.clone()

    @property
    def states(self) -> Tensor:
        """The states [g·n, K·C, ...] that the next evaluation sees: the state, once for each of g branches."""
        return self._loop.current.repeat(self.branches, *(1,) * (self._loop.current.dim() - 1))

    @property
    def cond(self) -> Mapping[str, Tensor]:
        """Tensors [g·n, ...] that the next evaluation is told beside state and time, the branches one after the other:
        the conditions, the networks' own draws, and the time `to` that the row goes to."""
        count = self.branches * len(self._batch.indices)
        found = {name: entry[:count] for name, entry in self._batch.cond.items()}
        if self.done:
            return found
        with torch.no_grad():
            return found | self._loop.told(self._rows[self.row])

    @property
    def samples(self) -> Tensor:
        """The samples [n, C, ...] of the state as it is now; the finished ones once all evaluations are done."""
        return self._resolved.samples(self._loop.current, self._batch.indices).clone()

    def step(self, output: Tensor) -> Tensor:
        """Takes the samples on by one evaluation; returns their state [n, K·C, ...], a tensor of its own.

        Args:
            output: of the network [g·n, C, ...] at `states` and `time`, in the model's parameterization.

        Raises:
            UsageError: where all evaluations are done, or for an output of another shape.
            TrilemmaError: after the last evaluation, where a state was not finite, with the evaluation and the sample.
        """
        if self.done:
            raise UsageError("all evaluations are done; take the samples, or call restart()")
        expected = (self.branches * len(self._batch.indices), *self._loop.evaluation.predicted)
        if not isinstance(output, Tensor) or output.shape != expected:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(
                f"the network's output is {found}; expected shape {expected}, as states and cond have"
            )
        with torch.no_grad():
            own = output.detach().to(self._loop.device, self._resolved.dtype).contiguous()
            row = self._rows[self.row]
            self._loop.row(row, self._loop.combined(row, own))
            self._run_silent_rows(row + 1)
        self.row += 1
        if self.done:
            self._loop.check_finite()
        return self.state


def _evaluations_of_steps(program: Program) -> tuple[int, ...]:
    """How many evaluations each step has that has any."""
    counts, row = [], 0
    for size in program.steps:
        counts.append(sum(slots.evaluated > 0 for slots in program.slots[row : row + size]))
        row += size
    return tuple(filter(None, counts))


@takes(Drawing)
def stepper(*arguments: Any, **options: Any) -> Stepper:
    """Returns the samples of a request before their first step, to be taken on from outside.

    The model is asked for its process, its parameterization, its shape and its conditions, and is never called.

    Args: of Drawing

    Raises:
        UsageError: for a sampler that runs steps of its own, or an impossible argument.
    """
    return Stepper(Drawing(*arguments, **options))
