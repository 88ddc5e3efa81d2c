"""Records which operators a fused network runs in a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from trilemma.models.fusion.report import FusionReport, Left
from trilemma.models.fusion.swapping import as_written, step_back, swap


class _Recording(threading.local):
    """The reports that this thread's calls are written into, and the names of the modules."""

    reports: tuple[FusionReport, ...] = ()
    names: dict[int, str] = {}  # noqa: RUF012 (replaced, never changed)


_recording = _Recording()


class Recorded(nn.Module):
    """The network itself before its first call, which fills its reports in."""

    # Copies are not recorded.
    _trilemma_once = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        reports = None if as_written() else vars(self).pop("_trilemma_reports", None)
        # Where it is traced, another thread's call was the first, or somebody kept this forward.
        if reports is None:
            kind: Any = type(self)
            inner = kind._trilemma_swap.inner if issubclass(kind, Recorded) else kind
            return inner.forward(self, *args, **kwargs)
        step_back(self)
        with recording(self, reports):
            return type(self).forward(self, *args, **kwargs)


def record_first_call(network: nn.Module, report: FusionReport) -> None:
    """Has the next call of a network fill a report in."""
    if not isinstance(network, Recorded):
        swap(network, Recorded)
    vars(network)["_trilemma_reports"] = (*vars(network).get("_trilemma_reports", ()), report)


@contextmanager
def recording(network: nn.Module, reports: tuple[FusionReport, ...]) -> Iterator[None]:
    """Fills reports in with all that the modules of a network run meanwhile in this thread."""
    outer = _recording.reports, _recording.names
    names = {id(module): name for name, module in network.named_modules()}
    for report in reports:
        report.ran, report.as_written = {}, []
    _recording.reports, _recording.names = reports, names
    try:
        yield
    finally:
        _recording.reports, _recording.names = outer


def note(module: nn.Module, pattern: str = "", why: str = "") -> None:
    """Writes down that a module runs a pattern by its operator, or why it runs as it is written."""
    for report in _recording.reports:
        if pattern and report.ran is not None:
            report.ran[pattern] = report.ran.get(pattern, 0) + 1
        elif (name := _recording.names.get(id(module))) is not None:
            entry = Left(name, why)
            if entry not in report.as_written:
                report.as_written.append(entry)
