"""What a plugin does to the process while it loads stays its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

ENDS = {
    "mute": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "E: its message cannot be read",
    ),
    "mute-for-good": (
        "class E(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise E",
        "E: its message cannot be read",
    ),
    "no-text": (
        "class E(Exception):\n    def __str__(self): return 3\nraise E",
        "E: its message cannot be read",
    ),
    "keyboard": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "generator": ("raise GeneratorExit", "GeneratorExit"),
    "exit": ("raise SystemExit", "it called sys.exit()"),
    "exit-odd": (
        "class C:\n    def __str__(self): raise ValueError\nraise SystemExit(C())",
        "it called sys.exit(its message cannot be read: ValueError)",
    ),
    "os-exit": ("import os; os._exit(7)", "it called os._exit(7)"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "memory": ("raise MemoryError", "MemoryError"),
    "megabyte": ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
    "escape": ("raise ValueError('\\x1b[2J\\x07red')", "ValueError: \\x1b[2J\\x07red"),
    "bases": ("raise BaseException('base')", "BaseException: base"),
    "group": ("raise BaseExceptionGroup('g', [KeyboardInterrupt()])", "BaseExceptionGroup: g"),
    "name-odd": ("raise ModuleNotFoundError('m', name=3)", "ModuleNotFoundError: m"),
    "cyclic": ("import cyclic_b", "partially initialized module"),
}


@pytest.fixture
def ending(site, good):
    for name, (source, _) in ENDS.items():
        site.install(name, source)
    (site.path / "cyclic_b.py").write_text("from cyclic import nothing")
    site.install("no-module", "", entry_point="x", module="not_there")
    (site.path / "not_there.py").unlink()
    site.install("good", good.format(name="fine"))
    return site


def test_no_end_of_an_import_ends_the_program(ending):
    records = ending.records()
    for name, (_, reason) in ENDS.items():
        record = records[f"{name}/{name.replace('-', '_')}"]
        assert record["status"] == "failed", record
        assert reason in record["reason"], record
        assert record["reason"].isprintable()
        assert len(record["reason"]) <= 200
    assert records["no-module/x"]["reason"] == "its module 'not_there' is not there; install no-module again"
    assert records["good/good"]["status"] == "ok"
    assert ending.trilemma("plugins", env={"TRILEMMA_TRACE_PLUGINS": "1"}).returncode == 0


def test_a_real_ctrl_c_still_ends_the_program(site):
    site.install("slow", "import sys, time\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(60)")
    swallowing = "import time\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
    for source in ("", swallowing):
        if source:
            site.install("slow", "import sys\nprint('here', file=sys.stderr, flush=True)\n" + source)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(site.path), os.environ.get("PYTHONPATH", "")]),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "trilemma", "plugins"], env=environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


LOUD = """
import os, subprocess, sys
print("by print")
os.write(1, b"by os.write\\n")
sys.__stdout__.write("by the first stdout\\n")
sys.stdout.write("by sys.stdout\\n")
subprocess.run(["echo", "by a child"])
import warnings; warnings.warn("by a warning")
"""
WAYS = ("print", "os.write", "the first stdout", "sys.stdout", "a child")


@pytest.mark.parametrize("arguments", [["plugins", "--json"], ["plugins", "show", "loud", "--json"]])
def test_nothing_printed_while_loading_reaches_stdout(site, good, arguments):
    site.install("loud", LOUD + good.format(name="loud"))
    done = site.trilemma(*arguments)
    assert done.returncode == 0
    json.loads(done.stdout)
    for way in WAYS:
        assert done.stderr.count(f"by {way}\n") == 1
    told = site.trilemma("--help").stdout
    assert told.startswith("Usage:")
    assert not [way for way in WAYS if f"by {way}\n" in told]


def test_nothing_printed_while_a_command_runs_mixes_with_its_json(site, tmp_path):
    sampler = (
        LOUD
        + "\nfrom trilemma_plugins.ddim.sampler import DDIM\n"
        + "class Loud(DDIM):\n    def plan(self, *a):\n"
        + "".join(f"        {line}\n" for line in LOUD.strip().splitlines())
        + "        return super().plan(*a)\n"
    )
    (site.path / "loud_sampler.py").write_text(sampler)
    site.install(
        "loud",
        "from trilemma.registry import SamplerSpec, hookimpl\n@hookimpl\ndef trilemma_register(registry):\n"
        "    registry.sampler(SamplerSpec(name='loud', target='loud_sampler:Loud', summary='s'))\n",
    )
    out = tmp_path / "x.npz"
    done = site.trilemma(
        "sample", "mnist", "-n", "1", "--steps", "1", "--sampler", "loud", "--out", str(out), "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drawn"] == 1
    for way in WAYS:
        assert done.stderr.count(f"by {way}\n") >= 2


CHANGES = {
    "the working directory": "os.chdir('/')",
    "os.environ": "os.environ['HOME'] = 'x'; os.environ['NEW'] = 'y'; os.environ.pop('PATH')",
    "sys.path": "sys.path[:] = []",
    "the warning filters": "warnings.simplefilter('error')",
    "the root logger": "logging.basicConfig(level=1)",
    "the recursion limit": "sys.setrecursionlimit(200)",
    "Python's random state": "random.seed(0)",
    "sys.excepthook": "sys.excepthook = lambda *a: None",
    "sys.stdout": "sys.stdout = open(os.devnull, 'w')",
    "sys.stderr": "sys.stderr = None",
    "the handler of SIGINT": "signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "the handler of SIGTERM": "signal.signal(signal.SIGTERM, lambda *a: None)",
    "torch's default dtype": "torch.set_default_dtype(torch.float64)",
    "torch's grad mode": "torch.set_grad_enabled(False)",
    "torch's random state": "torch.manual_seed(3)",
    "torch's deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "a thread that it started and that still runs": "t = threading.Timer(9, print); t.daemon = True; t.start()",
}
IMPORTS = "import logging, os, random, signal, sys, threading, time, warnings\n"

STATE = """
import logging, os, random, signal, sys, warnings
with_torch = sys.argv[1] == "torch"
if with_torch:
    import torch
    torch.manual_seed(17)
random.seed(5)

def blanket():
    return [entry for entry in warnings.filters if entry[1:4] == (None, Warning, None)]

def state():
    found = [os.getcwd(), dict(os.environ), list(sys.path), blanket(), logging.root.level,
             list(logging.root.handlers), sys.getrecursionlimit(), random.getstate(), sys.excepthook, sys.stdout,
             sys.stderr, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    if with_torch:
        found += [torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().tolist(),
                  torch.are_deterministic_algorithms_enabled()]
    return found

before = state()
from trilemma import registry as plugins
records = plugins.catalog().records
for number, (old, new) in enumerate(zip(before, state(), strict=True)):
    assert old == new, (number, old, new)
import torch
assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
for record in records:
    if record.distribution != "trilemma":
        print(record.name, record.status, record.reason)
"""


@pytest.mark.parametrize("torch", ["torch", "no-torch"])
def test_the_state_of_the_process_is_put_back_and_the_plugin_says_so(site, good, torch):
    asked = {
        name: line
        for name, line in CHANGES.items()
        if "torch" not in name or torch == "torch" or "dtype" in name
    }
    for number, line in enumerate(asked.values()):
        source = IMPORTS + ("import torch\n" if "torch." in line else "") + line
        site.install(f"changes-{number}", source + good.format(name=f"s{number}"))
    done = site.python(STATE, torch)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ok ") for line in done.stdout.splitlines())
    assert len(said) == len(asked)
    for number, name in enumerate(asked):
        reason = (
            said[f"changes_{number}"].removeprefix("while loading it changed ").removesuffix("; put back")
        )
        assert name in reason
        if "deterministic" not in name:  # which sets a variable of the environment too
            assert reason == name


def test_what_is_raised_at_the_end_of_the_program_changes_no_exit_code(site, good):
    site.install("at-exit", "import atexit\natexit.register(lambda: 1 / 0)\n" + good.format(name="at-exit"))
    done = site.trilemma("plugins", "--json")
    assert done.returncode == 0
    json.loads(done.stdout)


def test_a_slow_plugin_is_named(site, good):
    site.install("slow", "import time; time.sleep(1.1)\n" + good.format(name="slow-one"))
    done = site.trilemma("plugins")
    assert "slow/slow 1.2  ok      it takes 1.1 s to load, which every command waits for" in done.stdout
    assert done.stderr == "note: plugin slow/slow took 1.1 s to load; leave it out with --no-plugin slow\n"
    assert site.trilemma("--no-plugin", "slow", "plugins").stderr == ""
    assert "slow/slow took" in site.trilemma("--help").stderr


SPECS = {
    "long-name": ("name='a' * 81", "name has 81 characters; at most 80"),
    "huge-summary": ("summary='x' * 10**6", "summary has 1000000 characters; at most 200"),
    "bell": ("summary='\\x07ding'", "summary='\\x07ding' must be one line of printable"),
    "escape": ("summary='\\x1b[31mred'", "must be one line of printable"),
    "two-lines": ("summary='a\\nb'", "must be one line"),
    "reference": ("reference='\\x00'", "must be one line of printable"),
    "subclass": ("summary=type('S', (str,), {})('s')", "is not a string"),
}


HOOK = "@hookimpl\ndef trilemma_register(registry):\n"


def test_absurd_specs_are_refused_and_garbage_from_a_hook_is_ignored(site):
    head = "from trilemma.registry import SamplerSpec, hookimpl\n"
    for name, (field, _) in SPECS.items():
        usual = {"name": "'n'", "target": "'a:B'", "summary": "'s'"}
        usual.pop(field.partition("=")[0], None)
        fields = ", ".join([field, *(f"{key}={value}" for key, value in usual.items())])
        site.install(name, head + HOOK + f"    registry.sampler(SamplerSpec({fields}))\n")
    odd = "class Odd(SamplerSpec):\n    @property\n    def kind(self): raise KeyError\n"
    site.install("odd", head + odd + HOOK + "    registry.sampler(Odd('o', 'a:B', 's'))\n")
    site.install("garbage", head + HOOK + "    return [registry, object(), 1 / 3]\n")
    records = site.records()
    for name, (_, reason) in SPECS.items():
        record = records[f"{name}/{name.replace('-', '_')}"]
        assert record["status"] == "failed", record
        assert reason in record["reason"], record
    assert records["odd/odd"]["status"] == "failed"
    assert records["garbage/garbage"]["status"] == "ok"


def test_a_damaged_list_of_entry_points_hides_no_other_plugin(site, good):
    site.install("good", good.format(name="fine"))
    site.install("damaged", "")
    damaged = site.path / "damaged-1.2.dist-info" / "entry_points.txt"
    for text in (b"\xff\xfe\x00", b"[trilemma]\nx = : : y\n", b"no section = 1\n", b"[trilemma\nx=y\n"):
        damaged.write_bytes(text)
        records = site.records()
        assert records["good/good"]["status"] == "ok"
        assert records["trilemma/ddim"]["status"] == "ok"
