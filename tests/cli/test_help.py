"""The façade: help, versions, exit codes, one line an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from trilemma.cli import app, facade
from trilemma.errors import ConformanceError, ModelError, PluginUnavailable, TrilemmaError, UsageError


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "trilemma", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_help_lists_every_command(capsys):
    assert app.main(["--help"]) == 0
    said = capsys.readouterr().out
    for command in ("sample", "train", "eval", "plugins", "doctor"):
        assert f"\n  {command} " in said


@pytest.mark.parametrize("command", ["sample", "train", "eval", "plugins", "doctor"])
def test_every_command_has_help(command, capsys):
    assert app.main([command, "--help"]) == 0
    assert f"Usage: trilemma {command}" in capsys.readouterr().out


def test_version(capsys):
    from trilemma.version import __version__

    assert app.main(["--version"]) == 0
    assert capsys.readouterr().out == f"trilemma {__version__}\n"


def test_no_command_prints_the_help_and_is_a_usage_error(capsys):
    assert app.main([]) == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smaple"], "error: no command 'smaple'; did you mean 'sample'?; see trilemma --help\n"),
        (["--nonsense"], "error: No such option: --nonsense; see trilemma --help\n"),
        (["train"], "error: Missing argument 'recipe'; see trilemma train --help\n"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, message, capsys):
    assert app.main(arguments) == 2
    said, error = capsys.readouterr()
    assert (said, error.lower()) == ("", message.lower())


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (TrilemmaError("one\ntwo"), 1, "error: one two\n"),
        (ModelError("m"), 1, "error: m\n"),
        (UsageError("u"), 2, "error: u\n"),
        (PluginUnavailable("p"), 3, "error: p\n"),
        (ConformanceError("c"), 4, "error: c\n"),
        (
            FileNotFoundError(2, "No such file", "x.toml"),
            1,
            "error: x.toml: No such file; check the place, its permissions and its free space\n",
        ),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "error: ZeroDivisionError: by zero; set TRILEMMA_TRACEBACK=1 to see where it came from\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line_with_their_exit_code(raised, code, line, monkeypatch, capfd):
    def command() -> None:
        raise raised

    monkeypatch.setattr(facade, "import_target", lambda component: command)
    assert app.main(["doctor"]) == code
    assert capfd.readouterr() == ("", line)


def test_tracebacks_appear_on_request(monkeypatch, capsys):
    def command() -> None:
        raise UsageError("u")

    monkeypatch.setattr(facade, "import_target", lambda component: command)
    monkeypatch.setenv("TRILEMMA_TRACEBACK", "1")
    assert app.main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("\nerror: u\n")


def test_a_reader_that_went_away_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "trilemma", "plugins", "--json"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_under_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trilemma", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device; ")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_exits_130_without_a_traceback(tmp_path):
    # A shell starts its background jobs with SIGINT ignored, and children inherit that.
    script = "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from trilemma.cli import app, facade; facade.import_target = lambda c: stop\n"
    script += (
        "def stop() -> None:\n    print('ready', flush=True); time.sleep(60)\nsys.exit(app.main(['doctor']))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=30)
    assert (child.returncode, error) == (130, "")


def test_output_survives_a_terminal_without_greek():
    done = run("plugins", "show", "ddim", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stderr == ""
