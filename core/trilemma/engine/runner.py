"""Runs batches of one size: launched row by row, or replayed from graphs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from trilemma.engine.graphs import Capture, CaptureError, RecordedLoop, choose
from trilemma.engine.loop import Batch, Loop, Report


class Runner:
    """The loops of one batch size.

    Args:
        make: makes a loop of a class.
        asked: which capture, see `trilemma.engine.graphs`; a batch that cannot be captured is launched.
        batches: how many batches of this size are planned.

    Attributes:
        capture: of the last batch.
        backend: that its rows really ran on; None before the first.
    """

    def __init__(self, make: Callable[[type[Loop]], Loop], asked: str, batches: int) -> None:
        self._make, self._batches = make, batches
        self.loop = make(Loop)
        self.capture = Capture(asked, "off", {})
        self.backend: str | None = None
        self._recorded: tuple[str, int | None, RecordedLoop] | None = None
        self._failed = ""

    def run(self, batch: Batch, report: Report | None = None) -> Tensor:
        """Takes a batch through all rows; returns its last states, which the next batch overwrites.

        Raises:
            TrilemmaError: where a state is not finite, with the step, the time and the sample.
        """
        self.capture = choose(self.capture.asked, self.loop, batch.noise, report is not None, self._batches)
        recorded = self._record(batch) if self.capture.ran != "off" else None
        if recorded is not None:
            drawn = recorded.replay(batch, report)
            recorded.check_finite()
            self.backend = "native"
            return drawn
        loop, program = self.loop, self.loop.program
        loop.begin(batch)
        for row in range(len(program)):
            loop.row(row)
            if report is not None:
                report(row + 1, len(program), program.time_after(row), loop.current)
        loop.check_finite()
        self.backend = loop.backend
        return loop.current

    def _record(self, batch: Batch) -> RecordedLoop | None:
        """The graphs to replay, which the first batch that wants them makes; None where there can be none."""
        if self._failed:
            self.capture = self.capture.failed(self._failed)
            return None
        key = (self.capture.ran, batch.noise.seed)
        if self._recorded is None or self._recorded[:2] != key:
            made = self._make(RecordedLoop)
            assert isinstance(made, RecordedLoop)
            try:
                made.record(self.capture.ran, batch)
            except CaptureError as error:
                self._failed = str(error)
                self.capture = self.capture.failed(self._failed)
                return None
            self._recorded = (*key, made)
        return self._recorded[2]
