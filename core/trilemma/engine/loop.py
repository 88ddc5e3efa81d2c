"""The loop: it takes a batch through a program, row by row, in buffers made before the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.evaluation import Evaluation
from trilemma.engine.inpainting import KnownRegion
from trilemma.engine.noise import NoiseSource
from trilemma.engine.program import Program, Slots
from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import time_dtype
from trilemma.interfaces.guidance import BoundGuidance
from trilemma.numerics.normal import STEP
from trilemma.ops import OPERATORS, explain
from trilemma.ops.operator import signed

# What the networks see in a row, None without an evaluation, and how many entries, None for all.
Seen = tuple[Tensor | None, int | None]
# What a row writes, sees and starts from; its predictions; its further states; the state that it leaves; what networks
# see.
Place = tuple[Tensor, Tensor, Tensor, tuple[Tensor | None, int, tuple[int, ...]], list[Tensor], Tensor, Seen]


@dataclass(frozen=True)
class Batch:
    """The samples that a loop takes at once.

    Attributes:
        states: [B, ...] before the first row.
        indices: of the samples [B], int64, beside the states.
        noise: where ξ is taken from; keyed noise is made inside the kernel.
        cond: conditions of the networks [G·B], the branches one after the other.
        targets: of the guidance [B], by name.
        known: images, masks and noise [B, ...] of the region that is given; None for none.
    """

    states: Tensor
    indices: Tensor
    noise: NoiseSource
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    known: tuple[Tensor, Tensor, Tensor] | None = None


class Loop:
    """The states and predictions of a batch, and the rows that take them on.

    The states live in buffers of G·B entries, one replica of the batch a branch of guidance: the networks read all of
    them in one call and the kernel writes each. All that a row touches is made here, views included, so that a row
    itself makes no tensor and reads nothing back from the device.

    Args:
        program: the program to run.
        guidance: which networks are evaluated, and how they combine.
        batch: B.
        shape: of one state, (K·C, ...).
        dtype: of the states.
        network_dtype: of the networks.
        device: of everything.
        inpaints: whether a region of every state is given.
    """

    operator: str = "linear_step"

    def __init__(
        self,
        program: Program,
        guidance: BoundGuidance,
        batch: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        network_dtype: torch.dtype,
        device: torch.device,
        inpaints: bool = False,
    ) -> None:
        self.program, self.guidance = program, guidance
        self.batch, self.shape, self.device = batch, shape, device
        self.evaluation = Evaluation(guidance, batch, shape, dtype, network_dtype, device)
        replicas = program.branches
        self.states = [
            torch.empty((replicas * batch, *shape), dtype=dtype, device=device) for _ in range(program.states)
        ]
        self.firsts = [state[:batch] for state in self.states]
        self.history = None
        if program.history:
            size = (program.history, batch, *self.evaluation.predicted)
            self.history = torch.empty(size, dtype=dtype, device=device)
        self.bad_row = torch.empty(batch, dtype=torch.int32, device=device)
        # By row: to look a record up by its value costs as much as a small kernel.
        distinct = {id(slots): slots for slots in program.slots}
        places = {key: self._place(slots) for key, slots in distinct.items()}
        self._places = [places[id(slots)] for slots in program.slots]
        self._linear = guidance.linear
        self._process = guidance.branches[0].network.process
        self.region: KnownRegion | None = None
        if inpaints:
            self.region = KnownRegion(self.states, replicas, self._alpha_sigma())
        self.current = self.firsts[0]
        self.table, self.numbers, self.times, self.ends = self._numbers(time_dtype(network_dtype))
        self._draws = bool(self.evaluation.draws)

    def _numbers(self, kind: torch.dtype) -> tuple[Tensor, Sequence[Any], Sequence[Tensor], Sequence[Tensor]]:
        """The table, and for each row its number, its times [G·B] and those it goes to where networks are told them."""
        program = self.program
        each = [program.times, program.ends] if self.evaluation.takes_to else [program.times]
        times = torch.tensor(each, dtype=kind).unsqueeze(-1).expand(-1, -1, program.branches * self.batch)
        first, *ends = [entry.unbind() for entry in times.contiguous().to(self.device)]
        return program.table, range(len(program)), first, ends[0] if ends else ()

    def begin(self, batch: Batch) -> None:
        """Takes a batch in, before its first row."""
        self.states[0].view(self.program.branches, *batch.states.shape).copy_(batch.states)
        self.bad_row.fill_(-1)
        self.indices, self.cond, self.targets = batch.indices, batch.cond, batch.targets
        self.noise, self.seed = batch.noise, self._seed(batch.noise)
        self._given = batch.noise.seed is None
        self._launch = OPERATORS[self.operator].launcher()
        if self.region is not None and batch.known is not None:
            self.region.load(*batch.known)
        self.current = self.firsts[0]

    def _seed(self, noise: NoiseSource) -> Any:
        return signed(noise.seed or 0)

    def output(self, row: int) -> Tensor | None:
        """Returns the outputs [g·B, ...] of the networks at a row's state, or one combination [B, ...] of them.

        A row without an evaluation has None.
        """
        states, count = self._places[row][-1]
        if states is None:
            return None
        if self._draws:
            self.draw(row)
        times, to = self.times[row], self.ends[row] if self.ends else None
        outputs = self.evaluation(states, times if count is None else times[:count], self.cond, to)
        return outputs if self._linear else self.combined(row, outputs)

    def told(self, row: int) -> dict[str, Tensor]:
        """Returns what the networks are told in a row beside the conditions [g·B, ...], in tensors of their own."""
        count = self.program.slots[row].evaluated * self.batch
        to = self.ends[row] if self.ends else None
        self.draw(row)
        found: dict[str, Tensor] = {}
        for network in self.evaluation.networks:
            found |= self.evaluation.told(network, 0, count, to)
        return {name: entry.clone() for name, entry in found.items()}

    def draw(self, row: int) -> None:
        """Draws for the networks what they want for themselves in a row."""
        self.evaluation.draw(self.noise, self.indices, row)

    def combined(self, row: int, outputs: Tensor) -> Tensor:
        """Returns outputs [g·B, ...] as the kernel takes them: as they are, where it combines them itself."""
        if self._linear:
            return outputs
        slots = self.program.slots[row]
        z, t = self.firsts[slots.seen], self.program.times[row]
        return self.evaluation.combined(z, t, outputs, self.targets, slots.evaluated)

    def row(self, row: int, output: Tensor | None = None) -> None:
        """Takes the batch through a row; a given `output` replaces the networks' answer."""
        if output is None:
            output = self.output(row)
        written, seen, base, history, others, left, _ = self._places[row]
        noise = self._noise_of(row) if self._given and self.program.noisy[row] else None
        self._launch(
            *(written, seen, base, output, self.table, self.numbers[row], *history),
            *(self.seed, self.indices, noise, self.bad_row, others),
        )
        if self.region is not None:
            self.region.impose(self.program.slots[row].write, row)
        self.current = left

    def _noise_of(self, row: int) -> Tensor:
        like = self.current
        return self.noise.normal(
            self.indices, row, self.shape, stream=STEP, dtype=like.dtype, device=like.device
        )

    def _place(self, slots: Slots) -> Place:
        history = self.history, slots.write_history, slots.history
        others = [self.firsts[slot] for slot in slots.others]
        written, left = self.states[slots.write], self.firsts[slots.write]
        first, base = self.firsts[slots.seen], self.firsts[slots.base]
        return written, first, base, history, others, left, self._seen(slots)

    def _seen(self, slots: Slots) -> Seen:
        states = self.states[slots.seen]
        if not slots.evaluated:
            return None, None
        if slots.evaluated == self.program.branches:
            # A view of the whole would cost more in every call of the network.
            return states, None
        count = slots.evaluated * self.batch
        return states[:count], count

    @cached_property
    def backend(self) -> str:
        """The backend that the operator runs on."""
        slots = self.program.slots[0]
        written, seen, base, history, others, *_ = self._places[0]
        size = (slots.evaluated if self._linear else 1) * self.batch
        output = written.new_empty((size, *self.evaluation.predicted)) if slots.evaluated else None
        call = (written, seen, base, output, self.program.table, 0, *history)
        return explain("linear_step", *call, 0, self.indices, None, self.bad_row, others).backend

    def check_finite(self) -> None:
        """Reads back, once a batch, where a state first left the finite numbers.

        Raises:
            TrilemmaError: with the row, the time and the sample.
        """
        bad = self.bad_row.cpu()
        if (bad < 0).all():
            return
        first = int(bad[bad >= 0].min())
        sample = int(self.indices.cpu()[bad == first][0])
        raise TrilemmaError(
            f"step {first + 1} of {len(self.program)} (t={self.program.times[first]:.6g}) gave a value "
            f"that is not finite in sample {sample}; check the model's weights, or use a wider dtype"
        )

    def _alpha_sigma(self) -> list[tuple[float, float]]:
        """(α, σ) of the state after each row."""
        after = torch.tensor([*self.program.times[1:], self.program.end_time], dtype=torch.float64)
        alpha, sigma = self._process.alpha_sigma(after)
        return list(zip(alpha.tolist(), sigma.tolist(), strict=True))


# Called after each row with (rows done, rows, time of the state, state [B, ...]).
Report = Callable[[int, int, float, Tensor], None]
