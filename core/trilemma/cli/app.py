"""The command line `trilemma`: one line on stderr for every error, and an exit code for its kind.

0 ok    1 failure    2 usage    3 plugin unavailable    4 conformance    130 interrupted
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from trilemma import registry as plugins
from trilemma.cli.facade import Facade, without_idle_validation
from trilemma.errors import TrilemmaError, described, one_line
from trilemma.version import __version__

# Typer does not export the class itself.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(cls=Facade, add_completion=False, rich_markup_mode=None, invoke_without_command=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line on `sys.argv[1:]`, or these arguments, and returns its exit code."""
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that has no α still shows its table, and a file name that is no text can still be printed.
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _print_warning
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        command = without_idle_validation(typer.main.get_command(app))
        code = command.main(arguments, prog_name="trilemma", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except Exception as error:
        return _report(error)
    finally:
        _name_slow_plugins()


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Prints a warning as one line, without the place in our code that gave it."""
    with contextlib.suppress(OSError):
        print(one_line(f"warning: {message}"), file=sys.stderr, flush=True)


def _name_slow_plugins() -> None:
    for record in plugins.loaded():
        if record.slow:
            text = f"plugin {record.address} took {record.milliseconds / 1e3:.1f} s to load"
            print(f"note: {text}; leave it out with --no-plugin {record.name}", file=sys.stderr)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"trilemma {__version__}")
        raise typer.Exit


def _exclude(names: list[str] | None) -> None:
    plugins.exclude(names or ())


@app.callback()
def options(
    context: typer.Context,
    no_plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--no-plugin",
            metavar="NAME",
            help="Leave out a plugin: entry point, distribution, or distribution/entry point; repeatable.",
            callback=_exclude,
            is_eager=True,
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Trilemma, a diffusion engine."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def _report(error: Exception) -> int:
    """Prints an error as one line and returns its exit code."""
    # Standard error may be full or gone: the exit code remains.
    with contextlib.suppress(OSError):
        if os.environ.get("TRILEMMA_TRACEBACK", "") not in ("", "0"):
            traceback.print_exception(error)
    if isinstance(error, TrilemmaError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, _UsageError):
        code, message = 2, _usage(error)
    elif isinstance(error, ModuleNotFoundError) and (package := _requirement(error.name or "")):
        code, message = 1, f"the package {package} is not installed; pip install {package}"
    elif isinstance(error, MemoryError):
        code, message = 1, "there is not enough memory; ask for fewer or smaller samples at once"
    elif isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        code, message = 1, f"{place}{error.strerror}; check the place, its permissions and its free space"
        _discard_output()
    else:
        code = 1
        message = f"{described(error)}; set TRILEMMA_TRACEBACK=1 to see where it came from"
    with contextlib.suppress(OSError):
        print(one_line(f"error: {message}"), file=sys.stderr, flush=True)
    return code


def _requirement(module: str) -> str | None:
    """Returns the distribution of a module that trilemma requires; None for any other module."""
    top = module.partition(".")[0]
    wanted = "pillow" if top == "PIL" else top.replace("_", "-")
    try:
        required = metadata.requires("trilemma") or []
    except metadata.PackageNotFoundError:
        return None
    names = {re.split(r"[^\w.-]", entry, maxsplit=1)[0] for entry in required if "extra ==" not in entry}
    return wanted if wanted in names else None


def _usage(error: Exception) -> str:
    """typer's message about bad arguments, with the help that explains them."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "trilemma"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{message.rstrip('.')}; see {where} --help"


def _open_streams() -> None:
    """Opens the null device for the streams that were closed before the program began.

    Otherwise the next file that is opened takes their number, and printed text goes into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # A new file takes the smallest number that is free.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # The stream stays open as long as the process lives.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _discard_output() -> None:
    """Sends buffered output to the null device, so that the interpreter ends quietly where stdout cannot be written."""
    # A stdout that is no file needs no such care.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
