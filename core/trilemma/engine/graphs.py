"""CUDA graphs of the loop: which are recorded, when, and why not.

A graph replays launches as they were recorded, so that everything that changes from one replay to the next must lie on
the device: the row and its time, the seed, the samples and their conditions. `RecordedLoop` is the loop in that form.
That form runs on any device; only `Recorder`, which makes the graphs, needs a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from trilemma.engine.loop import Batch, Loop, Report
from trilemma.engine.noise import NoiseSource
from trilemma.engine.program import Slots
from trilemma.errors import TrilemmaError
from trilemma.ops import native
from trilemma.ops.operator import requested_backend, signed

# Modes that are tried for each that can be asked for, best first.
ATTEMPTS: Final = {"auto": ("loop", "step"), "loop": ("loop", "step"), "step": ("step",), "off": ()}


@dataclass(frozen=True)
class Capture:
    """The capture that was asked of a run, and the one that it had.

    Attributes:
        asked: "auto", "loop", "step" or "off".
        ran: "loop" (one graph of all rows), "step" (a graph of a row, replayed for the rows like it) or "off".
        passed_over: by mode, in one line, why a mode that was tried before did not run.
    """

    asked: str
    ran: str
    passed_over: Mapping[str, str]

    def failed(self, why: str) -> Capture:
        """Returns the same request, after nothing could be captured."""
        tried = (mode for mode in ATTEMPTS[self.asked] if mode not in self.passed_over)
        return Capture(self.asked, "off", {**self.passed_over, **dict.fromkeys(tried, why)})

    def then(self, other: Capture) -> Capture:
        """Returns the capture of batches one after the other; where they differ, `ran` names both."""
        ran = self.ran.split(", ")
        both = ", ".join([*ran, *({other.ran} - {*ran})])
        return Capture(self.asked, both, {**other.passed_over, **self.passed_over})


class CaptureError(TrilemmaError):
    """Nothing was captured, and nothing has run."""


def none_of_a_plan(asked: str) -> Capture:
    """Returns the capture of a sampler that has no plan."""
    return Capture(asked, "off", {}).failed("the sampler runs steps of its own")


def choose(asked: str, loop: Loop, noise: NoiseSource, watched: bool, batches: int) -> Capture:
    """Returns the capture of a run: the first mode that a graph can do and, for "auto", that pays.

    Args:
        asked: one of `ATTEMPTS`.
        loop: of the batch.
        noise: where ξ is taken from.
        watched: whether the host follows the rows: a callback, a trajectory, a progress bar.
        batches: how many runs of a batch of this size there are.
    """
    if asked == "off":
        return Capture(asked, "off", {})
    guidance, slots = loop.guidance, loop.program.slots
    injected = "" if noise.seed is not None else _made_outside(noise)
    slope = "the network's answer is a gradient" if any(n.gradient for n in loop.evaluation.networks) else ""
    if nothing := why_impossible(loop) or injected or slope or guidance.uncapturable:
        return Capture(asked, "off", {}).failed(nothing)
    hooked = "the denoiser has forward hooks, which a graph would pass over" if _hooked(loop) else ""
    impossible = {
        "loop": "the host follows the steps, by a callback, a trajectory or a progress bar"
        if watched
        else "",
        "step": f"{type(guidance).__name__} reads the time on the host"
        if not guidance.linear
        else "the known region's noise level is a number of the host, another one every row"
        if loop.region
        else "",
    }
    not_worth = {
        "loop": "there is one batch of this size, too few to win back its capture" if batches < 2 else "",
        "step": "no row is like another" if len(set(slots)) == len(slots) else "",
    }
    passed_over: dict[str, str] = {}
    for mode in ATTEMPTS[asked]:
        why = impossible[mode] or ((hooked or not_worth[mode]) if asked == "auto" else "")
        if not why:
            return Capture(asked, mode, passed_over)
        passed_over[mode] = why
    return Capture(asked, "off", passed_over)


def why_impossible(loop: Loop) -> str:
    """Returns why nothing of a loop can be captured; "" where it may."""
    if loop.device.type != "cuda":
        return f"graphs are for CUDA, and this runs on {loop.device}"
    if requested_backend() == "reference":
        return "TRILEMMA_BACKEND=reference"
    if loop.states[0].dtype == torch.float64:
        return "the step of float64 states reads its numbers on the host"
    return native.load() or native.load_cuda()


def _made_outside(noise: NoiseSource) -> str:
    return f"the noise is made by {type(noise).__name__}, not by the kernel"


def _hooked(loop: Loop) -> bool:
    return any(
        module._forward_hooks or module._forward_pre_hooks
        for network in loop.evaluation.networks
        for module in network.modules()
    )


class RecordedLoop(Loop):
    """A loop and its graphs; the number of the row, its time and the seed lie on the device.

    Args: those of `Loop`.
    """

    operator = "linear_step_replay"

    def _numbers(self, kind: torch.dtype) -> tuple[Tensor, Sequence[Any], Sequence[Tensor], Sequence[Tensor]]:
        table, _, times, ends = super()._numbers(kind)
        # [rows, 1 or 2, G·B]: one selection gives a row all of its times.
        self._times = torch.stack([torch.stack(tuple(each)) for each in (times, ends) if each], 1)
        self._time = torch.empty_like(self._times[:1])
        self._number = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._draws_inside = True
        count = len(self.program)
        time, *to = self._time[0]
        return table.float().to(self.device), [self._number] * count, [time] * count, to * count

    def _seed(self, noise: NoiseSource) -> Any:
        # Made once: a graph reads it where it lies, and a copy from the host would wait for the device.
        if hasattr(self, "seed"):
            return self.seed
        assert noise.seed is not None
        return torch.tensor([signed(noise.seed)], dtype=torch.int64, device=self.device)

    def row(self, row: int, output: Tensor | None = None) -> None:
        torch.index_select(self._times, 0, self._number, out=self._time)
        super().row(row, output)
        self._number.add_(1)

    def draw(self, row: int) -> None:
        if self._draws_inside:
            super().draw(row)

    def begin(self, batch: Batch) -> None:
        """Takes a batch in. The tensors of the first one are copied, and those of later ones written over them."""
        if not hasattr(self, "indices"):
            self.indices = batch.indices.clone()
            self.cond = {name: entry.clone() for name, entry in batch.cond.items()}
            self.targets = {name: entry.clone() for name, entry in batch.targets.items()}
        self.indices.copy_(batch.indices)
        for own, given in ((self.cond, batch.cond), (self.targets, batch.targets)):
            for name, entry in own.items():
                entry.copy_(given[name])
        own_tensors = Batch(batch.states, self.indices, batch.noise, self.cond, self.targets, batch.known)
        super().begin(own_tensors)
        self._number.zero_()

    def record(self, mode: str, batch: Batch) -> None:
        """Makes the graphs: one of all rows, or one of each kind of row.

        Raises:
            CaptureError: where they cannot be made; nothing is left half captured.
        """
        recorder = Recorder(self.device)
        self.begin(batch)

        def warm_up() -> None:
            self.begin(batch)
            self.row(0)

        def all_rows() -> None:
            for row in range(len(self.program)):
                self.row(row)

        self._whole: Callable[[], None] | None = None
        self._graphs: dict[Slots, Callable[[], None]] = {}
        if mode == "loop":
            self._whole = recorder.record(all_rows, warm_up)
            return
        # The number of a row is part of the key of its draws, and one graph is of several rows.
        self._draws_inside = False
        for row, slots in enumerate(self.program.slots):
            if slots not in self._graphs:
                self._graphs[slots] = recorder.record(partial(self.row, row), warm_up)

    def replay(self, batch: Batch, report: Report | None) -> Tensor:
        """Takes a batch through all rows by the graphs; returns its last states, which the next batch overwrites."""
        self.begin(batch)
        program = self.program
        if self._whole is not None:
            self._whole()
        for row, slots in enumerate(program.slots if self._whole is None else ()):
            if slots.evaluated and self.evaluation.draws:
                super().draw(row)
            self._graphs[slots]()
            self.current = self.firsts[slots.write]
            if report is not None:
                report(row + 1, len(program), program.time_after(row), self.current)
        return self.firsts[program.slots[-1].write]


class Recorder:
    """Makes CUDA graphs that run one after the other, in memory that they share."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
        """Returns a function that launches again all that `body` launches; `warm_up` runs once before.

        Raises:
            CaptureError: where either waits for the device or fails; nothing is left half captured.
        """
        with torch.cuda.device(self.device), self._beside():
            try:
                with _waiting_refused():
                    warm_up()
            except Exception as error:
                raise CaptureError(f"the first step could not run without waiting: {_line(error)}") from error
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                _captured(graph, body, self._pool)
            except Exception as error:
                self._mend()
                raise CaptureError(f"it could not be captured: {_line(error)}") from error
        return graph.replay

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Runs the block on a stream of its own, ordered with the current one."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def _mend(self) -> None:
        """Ends what torch leaves open after a broken capture. Memory still goes to its pool, and until a capture ends
        well the generator believes that one is going on.
        """
        # Torch may have ended it itself.
        with suppress(Exception):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
        number = torch.zeros(1, device=self.device)
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")
            _captured(torch.cuda.CUDAGraph(), lambda: number.add_(1), torch.cuda.graph_pool_handle())


def _captured(graph: torch.cuda.CUDAGraph, body: Callable[[], Any], pool: Any) -> None:
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        body()
    except BaseException:
        # The error that broke the capture says more than the one that follows from it.
        with suppress(Exception):
            graph.capture_end()
        raise
    graph.capture_end()


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Turns a wait of the host for the device into an error, as it would break a capture beyond repair."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        # Torch warns that the mode does not notice every wait; the capture does notice.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
