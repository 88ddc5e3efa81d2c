"""CUDA graphs of the loop: what is captured, when, and why not.

A graph replays launches as they were recorded, so that everything that changes from one replay to the next must lie on
the device: the row and its time, the seed, the samples and their conditions. `Replayed` is the loop in that form. It
needs no GPU to be right, only to be fast; the graphs are made by `Recorder` alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from trilemma.engine.noise import KeyedNoise, NoiseSource
from trilemma.errors import TrilemmaError, UsageError
from trilemma.ops import linear_step_replay, native
from trilemma.ops.operator import requested_backend, signed

if TYPE_CHECKING:
    from trilemma.engine.loop import Callback, Runner
    from trilemma.engine.program import Program

# What is tried for each that can be asked for, best first.
ATTEMPTS: Final = {"auto": ("loop", "step"), "loop": ("loop", "step"), "step": ("step",), "off": ()}


@dataclass(frozen=True)
class Capture:
    """Which capture a run had.

    Attributes:
        asked: "auto", "loop", "step" or "off".
        ran: "loop" (one graph of all rows), "step" (a graph of a row, replayed for the rows like it) or "off".
        passed_over: why each that was tried before did not run, a line each.
    """

    asked: str
    ran: str
    passed_over: Mapping[str, str]

    def failed(self, why: str) -> Capture:
        """The same request, after nothing could be captured."""
        tried = (mode for mode in ATTEMPTS[self.asked] if mode not in self.passed_over)
        return Capture(self.asked, "off", {**self.passed_over, **dict.fromkeys(tried, why)})

    def then(self, other: Capture) -> Capture:
        """Of batches one after the other; where they differ, `ran` names both."""
        ran = self.ran.split(", ")
        both = ", ".join([*ran, *({other.ran} - {*ran})])
        return Capture(self.asked, both, {**other.passed_over, **self.passed_over})


class CaptureError(TrilemmaError):
    """Nothing was captured, and nothing has run."""


def checked(asked: str) -> str:
    """`asked`, where it can be asked for.

    Raises:
        UsageError: where it cannot.
    """
    if asked not in ATTEMPTS:
        raise UsageError(f"unknown capture {asked!r}; choose from {', '.join(ATTEMPTS)}")
    return asked


def none_of_a_plan(asked: str) -> Capture:
    """For a sampler that has no plan."""
    return Capture(asked, "off", {}).failed("the sampler runs steps of its own")


def choose(asked: str, runner: Runner, noise: NoiseSource, watched: bool, batches: int) -> Capture:
    """What is captured of a run, by what a graph cannot do and, for "auto", by what it is not worth.

    Args:
        asked: one of `ATTEMPTS`.
        runner: of the batch.
        noise: what ξ is taken from.
        watched: whether the host follows the steps: a callback, a trajectory, a progress bar.
        batches: how many runs of this batch there are.
    """
    slots = [slots_of(runner.program, row) for row in range(len(runner.program))]
    injected = "" if isinstance(noise, KeyedNoise) else "the noise is injected by the host"
    combine = runner.program.combine
    both = why_impossible(runner) or injected or (combine.uncapturable if combine else "")
    hooked = "the denoiser has forward hooks, which a graph would pass over" if _hooked(runner) else ""
    impossible = {
        "loop": "the host follows the steps, by a callback, a trajectory or a progress bar"
        if watched
        else "",
        "step": f"{type(runner.program.combine).__name__} reads the time on the host"
        if runner.program.combine
        else "the known region's noise level is a number of the host, another one every row"
        if runner.region
        else "",
    }
    not_worth = {
        "loop": "there is one batch of this size, too few to win back its capture" if batches < 2 else "",
        "step": "no row is like another" if len(set(slots)) == len(slots) else "",
    }
    passed_over: dict[str, str] = {}
    for mode in ATTEMPTS[asked]:
        why = both or impossible[mode] or ((hooked or not_worth[mode]) if asked == "auto" else "")
        if not why:
            return Capture(asked, mode, passed_over)
        passed_over[mode] = why
    return Capture(asked, "off", passed_over)


def why_impossible(runner: Runner) -> str:
    """Why nothing of a runner can be captured; "" where it may."""
    if runner.device.type != "cuda":
        return f"graphs are for CUDA, and this runs on {runner.device}"
    if requested_backend() == "reference":
        return "TRILEMMA_BACKEND=reference"
    if runner.states[0].dtype == torch.float64:
        return "the step of float64 states reads its numbers on the host"
    return native.load() or native.load_cuda()


def _hooked(runner: Runner) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in runner.network.modules())


@dataclass(frozen=True)
class Slots:
    """What tells the launches of one row from those of another: rows of equal slots are one graph."""

    seen: int
    read: int
    write: int
    read_history: tuple[int, ...]
    write_history: int
    evaluated: int


def slots_of(program: Program, row: int) -> Slots:
    """The slots of a row of a program."""
    return Slots(
        seen=program.write_state[row - 1] if row else 0,
        read=program.read_state[row],
        write=program.write_state[row],
        read_history=program.read_history[row],
        write_history=program.write_history[row],
        evaluated=program.evaluated[row] if program.evaluated else program.branches,
    )


class Replayed:
    """A runner's loop as graphs hold it, and the graphs.

    Args:
        runner: gives the buffers and the network.
        mode: "loop" or "step".
        start: states [B, ...] that the warm-up runs on.
        indices: their samples, [B].
        cond: their conditions, [G·B] each.
        noise: gives the seed.

    Raises:
        CaptureError: where the graphs cannot be made; nothing is left half captured.
    """

    def __init__(
        self,
        runner: Runner,
        mode: str,
        start: Tensor,
        indices: Tensor,
        cond: Mapping[str, Tensor],
        noise: KeyedNoise,
    ) -> None:
        program, device = runner.program, runner.device
        self.runner, self.mode, self.noise = runner, mode, noise
        self.table = program.table.float().to(device)
        self.times = torch.stack(runner.times)
        self.time = torch.empty_like(self.times[:1])
        self.row = torch.zeros(1, dtype=torch.int64, device=device)
        self.seed = torch.tensor([signed(noise.seed)], dtype=torch.int64, device=device)
        self.indices = indices.clone()
        self.cond = {name: labels.clone() for name, labels in cond.items()}
        self.slots = [slots_of(program, row) for row in range(len(program))]
        self._graphs: dict[Slots | None, Callable[[], None]] = {}  # None: the whole loop
        self._record(start)

    def begin(self, start: Tensor, indices: Tensor, cond: Mapping[str, Tensor]) -> None:
        """Puts a batch into the buffers, before its first row."""
        self.runner.begin(start)
        self.row.zero_()
        self.indices.copy_(indices)
        for name, labels in self.cond.items():
            labels.copy_(cond[name])

    def step(self, row: int) -> None:
        """The launches of a row, and of those like it: which of them it is the device knows."""
        runner, slots = self.runner, self.slots[row]
        torch.index_select(self.times, 0, self.row, out=self.time)
        linear_step_replay(
            runner.states[slots.write],
            runner.firsts[slots.seen],
            runner.firsts[slots.read],
            runner.output(slots.seen, row, self.time[0], self.cond),
            self.table,
            self.row,
            self.seed,
            history=runner.history,
            write_slot=slots.write_history,
            read_slots=slots.read_history,
            indices=self.indices,
            bad_row=runner.bad_row,
        )
        if runner.region is not None:
            runner.region.impose(slots.write, row)
        self.row.add_(1)

    def run(self, callback: Callback | None) -> None:
        """All rows of the batch that was begun."""
        if self.mode == "loop":
            self._graphs[None]()
            return
        program, rows = self.runner.program, len(self.slots)
        for row, slots in enumerate(self.slots):
            self._graphs[slots]()
            if callback is not None:
                now = program.times[row + 1] if row + 1 < rows else program.end_time
                callback(row + 1, rows, now, self.runner.firsts[slots.write])

    def _record(self, start: Tensor) -> None:
        recorder = Recorder(self.runner.device)

        def warm_up() -> None:
            self.begin(start, self.indices, self.cond)
            self.step(0)

        def all_rows() -> None:
            for row in range(len(self.slots)):
                self.step(row)

        if self.mode == "loop":
            self._graphs[None] = recorder.record(all_rows, warm_up)
            return
        for row, slots in enumerate(self.slots):
            if slots not in self._graphs:
                self._graphs[slots] = recorder.record(partial(self.step, row), warm_up)


class Recorder:
    """Makes CUDA graphs that run one after the other, in memory that they share."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
        """What launches again all that `body` launches; `warm_up` runs before, once, for all that happens once.

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
        """On a stream of our own, ordered with the current one."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def _mend(self) -> None:
        """Ends what torch leaves open where a capture breaks: memory goes to its pool, and the generator believes
        that a capture is going on, until one ends well.
        """
        with suppress(Exception):  # where torch has ended it itself
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
        with suppress(Exception):  # what broke the capture says more than that it is broken
            graph.capture_end()
        raise
    graph.capture_end()


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """A host that waits for the device breaks a capture beyond repair; here it is only an error."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not notice every wait; the capture does
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
