"""Isolation of other people's code while it is imported: of its output, its changes to the process and its exits."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn


class UserInterrupt(KeyboardInterrupt):
    """Raised where the user pressed Ctrl-C; any other KeyboardInterrupt comes from the block itself."""


class EndedProcess(BaseException):
    """Raised where the block called os._exit, which would have ended the program."""


@contextmanager
def quarantine() -> Iterator[list[str]]:
    """Runs a block and restores the state of the process afterwards, except for imported modules.

    Its output goes to stderr, also from subprocesses and through the file descriptor. State of the process that it
    changed is put back. A Ctrl-C ends the block and the program, whatever the block makes of it; a KeyboardInterrupt of
    its own is an exception like any other, and so is `os._exit`.

    Yields:
        A list that names, after the block, what was put back.

    Raises:
        UserInterrupt: where the user interrupted it.
    """
    changed: list[str] = []
    threads = set(threading.enumerate())
    with _interrupts(), _stdout_as_stderr(), _without_exit():
        restore = [(name, state(), put_back) for name, (state, put_back) in _states().items()]
        try:
            yield changed
        finally:
            for name, before, put_back in restore:
                with suppress(Exception):
                    if put_back(before):
                        changed.append(name)
            if any(thread.is_alive() for thread in set(threading.enumerate()) - threads):
                changed.append("a thread that it started and that still runs")


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Sends the output of the block to descriptor 1 to stderr."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        # The stream is closed: nothing can be written there.
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        for stream in (sys.stdout, sys.__stdout__):
            with suppress(Exception):
                if stream is not None:
                    stream.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    with stdout_kept(), redirect_stdout(sys.stderr):
        yield


@contextmanager
def _interrupts() -> Iterator[None]:
    """Handles SIGINT as before, and remembers it: where one was received, the block ends in UserInterrupt.

    Ctrl-C reaches the main thread alone.
    """
    received = False
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    handler: Callable[..., Any] = before

    def note(number: int, frame: Any) -> Any:
        nonlocal received
        received = True
        return handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            raise UserInterrupt


@contextmanager
def _without_exit() -> Iterator[None]:
    real, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            real(status)
        raise EndedProcess(f"it called os._exit({status!r}) while loading; its author must repair it")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = real


Put = Callable[[Any], bool]


def _states() -> dict[str, tuple[Callable[[], Any], Put]]:
    """Returns how each part of the process's state is read, and put back, by its name.

    Putting back answers whether it had been changed.
    """
    found = {
        "the working directory": _simple(os.getcwd, os.chdir),
        "os.environ": _simple(lambda: dict(os.environ), _set_environment),
        "sys.path": _simple(lambda: list(sys.path), lambda old: sys.path.__setitem__(slice(None), old)),
        "the warning filters": (lambda: list(warnings.filters), _put_back_filters),
        "the root logger": _simple(_logging_state, _set_logging),
        "the locale": _simple(
            lambda: locale.setlocale(locale.LC_ALL), lambda old: locale.setlocale(locale.LC_ALL, old)
        ),
        "the recursion limit": _simple(sys.getrecursionlimit, sys.setrecursionlimit),
        "Python's random state": _simple(random.getstate, random.setstate),
    }
    for name in ("excepthook", "displayhook", "stdin", "stdout", "stderr"):
        found[f"sys.{name}"] = _attribute(sys, name)
    found["threading.excepthook"] = _attribute(threading, "excepthook")
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) is not None:
                name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
                found[f"the handler of {name}"] = _handler(number)
    return found | _torch_states()


def _simple(read: Callable[[], Any], write: Callable[[Any], Any]) -> tuple[Callable[[], Any], Put]:
    def put_back(before: Any) -> bool:
        try:
            if read() == before:
                return False
        except OSError:
            # The working directory may be gone.
            pass
        write(before)
        return True

    return read, put_back


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Put]:
    def put_back(before: Any) -> bool:
        if getattr(owner, name, None) is before:
            return False
        setattr(owner, name, before)
        return True

    return lambda: getattr(owner, name, None), put_back


def _handler(number: int) -> tuple[Callable[[], Any], Put]:
    def put_back(before: Any) -> bool:
        if signal.getsignal(number) is before or signal.getsignal(number) == before:
            return False
        signal.signal(number, before)
        return True

    return lambda: signal.getsignal(number), put_back


def _set_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def _put_back_filters(before: list[Any]) -> bool:
    """Leaves alone what a library adds for warnings of its own when it is imported."""
    for_all = [
        (message, category, module)
        for _, message, category, module, _ in warnings.filters
        if category is Warning
    ]
    blanket = for_all.count((None, Warning, None)) > sum(
        entry[1:4] == (None, Warning, None) for entry in before
    )
    if not blanket and all(entry in warnings.filters for entry in before):
        return False
    warnings.resetwarnings()
    warnings.filters[:] = before  # type: ignore[index]
    return True


def _logging_state() -> tuple[int, list[Any], int]:
    return logging.root.level, list(logging.root.handlers), logging.root.manager.disable


def _set_logging(before: tuple[int, list[Any], int]) -> None:
    level, handlers, disabled = before
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    logging.disable(disabled)


def _torch_states() -> dict[str, tuple[Callable[[], Any], Put]]:
    """Returns the states of torch, whose defaults count where the block imports it."""
    defaults: dict[str, tuple[str, str, Any]] = {
        "torch's default dtype": ("get_default_dtype", "set_default_dtype", "float32"),
        "torch's grad mode": ("is_grad_enabled", "set_grad_enabled", True),
        "torch's deterministic algorithms": (
            "are_deterministic_algorithms_enabled",
            "use_deterministic_algorithms",
            False,
        ),
        "torch's number of threads": ("get_num_threads", "set_num_threads", None),
        "torch's random state": ("get_rng_state", "set_rng_state", None),
    }
    return {name: _of_torch(*entry) for name, entry in defaults.items()}


def _of_torch(reader: str, writer: str, default: Any) -> tuple[Callable[[], Any], Put]:
    def read() -> Any:
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        with suppress(Exception):
            return getattr(torch, reader)()

    def put_back(before: Any) -> bool:
        torch = sys.modules.get("torch")
        if before is None and default is not None and torch is not None:
            before = getattr(torch, default, None) if isinstance(default, str) else default
        now = read()
        if (
            before is None
            or now is None
            or (bool((now == before).all()) if hasattr(now, "all") else now == before)
        ):
            return False
        getattr(torch, writer)(before)
        return True

    return read, put_back
