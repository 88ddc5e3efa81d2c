"""Follows the steps of pages in the interpreter that runs it; alone, so that any Python with Trilemma can.

It imports Trilemma once and forks for every command: each begins as fresh as a program of its own, without the seconds
that importing torch takes. The Python blocks of a page run one after another in one process, as in one session.

A line of stdin is a request in JSON, a line of stdout its answer:

    {"session": "docs/sampling.md", "cwd": …, "path": […], "argv": […]}       a command
    {"session": "docs/sampling.md", "cwd": …, "path": […], "source": "…"}     a block of Python
    → {"code": 0, "said": "…"}
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any, BinaryIO

SECONDS = 600


def serve() -> None:
    import torch

    torch.set_num_threads(1)

    import trilemma.cli.app
    import trilemma.cli.sample
    import trilemma.engine.sampling
    import trilemma.models.loading

    trilemma.sample, trilemma.load  # noqa: B018 - names that are imported at first use

    sessions: dict[str, tuple[BinaryIO, BinaryIO]] = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            answer = _in_a_fork(request)
        else:
            name = request["session"]
            if name not in sessions:
                sessions[name] = _session(request)
            to, back = sessions[name]
            to.write(line.encode())
            to.flush()
            answer = json.loads(back.readline() or '{"code": 1, "said": "the session died"}')
        print(json.dumps(answer), file=answers, flush=True)


def _in_a_fork(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            signal.alarm(SECONDS)
            code = 1
            try:
                _settle(request, said.fileno())
                code = _program(request["argv"])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                _flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return {"code": code, "said": said.read().decode(errors="replace")}


def _session(request: dict[str, Any]) -> tuple[BinaryIO, BinaryIO]:
    """Returns the two ends of a process that runs blocks in one namespace."""
    asked, asks = os.pipe()
    answered, answers = os.pipe()
    if os.fork():
        os.close(asked)
        os.close(answers)
        return os.fdopen(asks, "wb"), os.fdopen(answered, "rb")
    os.close(asks)
    os.close(answered)
    with tempfile.TemporaryFile() as said:
        _settle(request, said.fileno())
        module = sys.modules["page"] = types.ModuleType("page")
        for line in os.fdopen(asked):
            block = json.loads(line)
            code, begin = 0, said.seek(0, os.SEEK_END)
            try:
                exec(compile(block["source"], block["place"], "exec"), module.__dict__)
            except BaseException:
                code = 1
                traceback.print_exc()
            _flush()
            said.seek(begin)
            answer = {"code": code, "said": said.read().decode(errors="replace")}
            os.write(answers, json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _settle(request: dict[str, Any], output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(request["cwd"])
    sys.path[:0] = [request["cwd"], *request["path"]]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    inherited = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*request["path"], inherited]))


def _program(argv: list[str]) -> int:
    match argv:
        case ["trilemma", *arguments]:
            from trilemma.cli.app import main

            sys.argv = argv
            return main(arguments)
        case ["python", "-m", module, *arguments]:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return 0
        case ["python", script, *arguments]:
            sys.argv = [script, *arguments]
            # A script finds its neighbours, as Python lets it.
            sys.path.insert(0, str(Path(script).parent.absolute()))
            try:
                runpy.run_path(script, run_name="__main__")
            finally:
                del sys.path[0]
            return 0
        case [program, *_]:
            _flush()
            os.execvp(program, argv)
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    serve()
