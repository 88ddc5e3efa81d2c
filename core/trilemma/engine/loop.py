"""Runs a program: one call to the denoiser and one fused step a row, in buffers made before the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.graphs import Capture, CaptureError, Replayed, checked, choose
from trilemma.engine.inpainting import KnownRegion
from trilemma.engine.networks import network_conditions, routed, targets_in
from trilemma.engine.noise import KeyedNoise, NoiseSource
from trilemma.engine.program import Program
from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.numerics.normal import STEP
from trilemma.ops import explain, linear_step

# Called after each row with (rows done, rows, time the state is now at, state [B, ...]).
Callback = Callable[[int, int, float, Tensor], None]


class Runner:
    """The buffers of one batch shape, and the loop over a program's rows.

    The states live in a ring of G·B rows, one replica of the batch a branch of guidance: the network reads
    all of them in one call and the kernel writes each. Everything the loop touches is made here, views
    included, so that the loop itself makes no tensor and reads nothing back from the device.

    Args:
        denoiser: the network; it is called, never changed.
        program: what to run.
        batch: B.
        shape: shape of one state.
        dtype: of the state. A network in another dtype gets and gives its own through two more buffers.
        network_dtype: of the network.
        device: of everything.
        capture: "auto", "loop", "step" or "off"; see `trilemma.engine.graphs`. What cannot be captured is launched.
        batches: how many runs are planned: what a capture is worth.
        inpaints: whether a region of every state is given; see `trilemma.engine.inpainting`.
        networks: what evaluates each branch; `denoiser` all of them by default.

    Attributes:
        backend: that the fused step of the last run really ran on; None before a run.
        capture: which capture the last run had, and why not another.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        program: Program,
        batch: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        network_dtype: torch.dtype,
        device: torch.device,
        capture: str = "auto",
        batches: int = 1,
        inpaints: bool = False,
        networks: Sequence[Denoiser] = (),
    ) -> None:
        self.denoiser = denoiser
        self.network = routed(networks or [denoiser], batch)
        self.program = program
        self.shape = shape
        self.device = device
        self.batches = batches
        replicas = program.branches

        self.predicted = (shape[0] // program.components, *shape[1:])

        def buffer(count: int, kind: torch.dtype, one: tuple[int, ...] = shape) -> Tensor:
            return torch.empty((count, *one), dtype=kind, device=device)

        self.states = [buffer(replicas * batch, dtype) for _ in range(program.states)]
        self.firsts = [state[:batch] for state in self.states]
        self.history = (
            buffer(program.history * batch, dtype, self.predicted).unflatten(0, (-1, batch))
            if program.history
            else None
        )
        self.times = list(
            torch.tensor(program.times, dtype=time_dtype(network_dtype))
            .view(-1, 1)
            .expand(-1, replicas * batch)
            .contiguous()
            .to(device)
            .unbind()
        )
        self.backend: str | None = None
        self.capture = Capture(checked(capture), "off", {})
        self._replayed: Replayed | None = None
        self._uncapturable = ""
        self.bad_row = torch.empty(batch, dtype=torch.int32, device=device)
        self.region = KnownRegion(self.states, replicas, self._levels()) if inpaints else None
        mixed = network_dtype != dtype
        self.network_input = buffer(replicas * batch, network_dtype) if mixed else None
        self.network_output = buffer(replicas * batch, dtype, self.predicted) if mixed else None

    def run(
        self,
        start: Tensor,
        indices: Tensor,
        cond: Mapping[str, Tensor],
        noise: NoiseSource,
        callback: Callback | None = None,
        known: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The states [B, ...] after the last row; a view that the next run overwrites.

        Args:
            start: states [B, ...] before the first row.
            indices: sample indices [B], int64, on the device.
            cond: conditions [G·B], the branches one after the other, and the guidance's targets [B].
            noise: what ξ is taken from; keyed noise is made inside the kernel.
            callback: see `Callback`.
            known: images, masks and noise [B, ...] of the region that is given, where the runner inpaints.

        Raises:
            TrilemmaError: where a state is not finite, with the step, the time and the sample.
        """
        if self.region is not None and known is not None:
            self.region.load(*known)
        replayed = self._captured(start, indices, cond, noise, callback is not None)
        if replayed is not None:
            replayed.begin(start, indices, cond)
            replayed.run(callback)
            self.backend = "native"
        else:
            self._launch(start, indices, cond, noise, callback)
        self._check_finite(indices)
        return self.firsts[self.program.write_state[-1]]

    def begin(self, start: Tensor) -> None:
        """Puts the states of a batch [B, ...] into their buffers."""
        self.states[0].view(self.program.branches, *start.shape).copy_(start)
        self.bad_row.fill_(-1)

    def output(self, slot: int, row: int, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """What the fused step of a row reads: the network's outputs [G·B, ...] at the state in a slot, or one
        combination [B, ...] of them where the guidance makes it itself. In the dtype of the state.
        """
        program = self.program
        evaluated = program.evaluated[row] if program.evaluated else program.branches
        state, given = self.states[slot], network_conditions(cond)
        if evaluated < program.branches:
            count = evaluated * len(self.bad_row)
            state, time = state[:count], time[:count]
            given = {name: labels[:count] for name, labels in given.items()}
        output = self._evaluate(state, time, given)
        if program.combine is None:
            return output
        guidance = program.combine.for_batch(targets_in(cond))
        return guidance.combine(self.firsts[slot], program.times[row], output.chunk(evaluated), self.denoiser)

    def _launch(
        self,
        start: Tensor,
        indices: Tensor,
        cond: Mapping[str, Tensor],
        noise: NoiseSource,
        callback: Callback | None,
    ) -> None:
        """Launches all rows, one after the other."""
        program, rows = self.program, len(self.program)
        self.begin(start)
        seed = noise.seed if isinstance(noise, KeyedNoise) else 0
        made_outside = not isinstance(noise, KeyedNoise)
        current = 0
        for row in range(rows):
            z, target = self.firsts[current], program.write_state[row]
            output = self.output(current, row, self.times[row], cond)
            xi = None
            if program.noisy[row] and made_outside:
                xi = noise.normal(indices, row, self.shape, stream=STEP, dtype=z.dtype, device=z.device)
            positional = (
                self.states[target],
                z,
                self.firsts[program.read_state[row]],
                output,
                program.table,
                row,
            )
            named: dict[str, Any] = {
                "history": self.history,
                "write_slot": program.write_history[row],
                "read_slots": program.read_history[row],
                "seed": seed,
                "indices": indices,
                "noise": xi,
                "bad_row": self.bad_row,
            }
            linear_step(*positional, **named)
            if self.region is not None:
                self.region.impose(target, row)
            current = target
            if callback is not None:
                now = program.times[row + 1] if row + 1 < rows else program.end_time
                callback(row + 1, rows, now, self.firsts[current])
        self.backend = explain("linear_step", *positional, **named).backend

    def _levels(self) -> list[tuple[float, float]]:
        """(α, σ) of the state after each row."""
        after = torch.tensor([*self.program.times[1:], self.program.end_time], dtype=torch.float64)
        alpha, sigma = self.denoiser.process.levels(after)
        return list(zip(alpha.tolist(), sigma.tolist(), strict=True))

    def _captured(
        self, start: Tensor, indices: Tensor, cond: Mapping[str, Tensor], noise: NoiseSource, watched: bool
    ) -> Replayed | None:
        """The graphs to replay, which the first run that wants them makes; None where there are to be none."""
        self.capture = choose(self.capture.asked, self, noise, watched, self.batches)
        if self._uncapturable:
            self.capture = self.capture.failed(self._uncapturable)
        mode = self.capture.ran
        if mode == "off":
            return None
        assert isinstance(noise, KeyedNoise)
        if self._replayed is None or (self._replayed.mode, self._replayed.noise) != (mode, noise):
            try:
                self._replayed = Replayed(self, mode, start, indices, cond, noise)
            except CaptureError as error:
                self._uncapturable = str(error)
                self.capture = self.capture.failed(self._uncapturable)
                return None
        return self._replayed

    def _evaluate(self, state: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The network's outputs [G·B, ...] at a time, in the dtype of the state."""
        if self.network_input is None or self.network_output is None:
            return self._called(state, time, cond)
        given, output = self.network_input, self.network_output
        if len(state) < len(given):
            given, output = given[: len(state)], output[: len(state)]
        given.copy_(state)
        return output.copy_(self._called(given, time, cond))

    def _called(self, state: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = self.network(state, time, **cond)
        if output.shape != (len(state), *self.predicted):
            raise TrilemmaError(
                f"the denoiser answered a state of shape {tuple(state.shape)} with one of shape "
                f"{tuple(output.shape)}; expected {(len(state), *self.predicted)}"
            )
        return output

    def _check_finite(self, indices: Tensor) -> None:
        """Reads back, once a run, where a state first left the finite numbers."""
        bad = self.bad_row.cpu()
        if (bad < 0).all():
            return
        first = int(bad[bad >= 0].min())
        sample = int(indices.cpu()[bad == first][0])
        raise TrilemmaError(
            f"step {first + 1} of {len(self.program)} (t={self.program.times[first]:.6g}) gave a value "
            f"that is not finite in sample {sample}; check the model's weights, or use a wider dtype"
        )
