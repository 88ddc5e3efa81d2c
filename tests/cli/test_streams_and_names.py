"""Streams that are closed, full or cut off, and names that are no text, too long or nobody's home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trilemma.cli.app import main
from trilemma.output import provenance
from trilemma.output.provenance_json import to_json

PROGRAM = f"{sys.executable} -m trilemma"


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_silence(here, streams):
    done = shell(f"{PROGRAM} plugins --json {streams}", here)
    assert done.returncode == 0
    assert done.stderr == b""
    failed = shell(f"{PROGRAM} plugins nonsense {streams}", here)
    assert failed.returncode == 2
    assert failed.stdout == b""
    assert (failed.stderr == b"") == ("2>&-" in streams)


def test_nothing_that_is_printed_gets_into_the_file_that_takes_the_number_of_a_closed_stream(
    tiny_model, here
):
    command = f"{PROGRAM} sample {tiny_model} -n 2 --steps 1 -o x.npz --no-progress >&- 2>&-"
    assert shell(command, here).returncode == 0
    assert provenance(here / "x.npz")["n"] == 2
    assert os.listdir(here) == ["x.npz"]


def test_streams_that_are_cut_off_or_full(here):
    cut = shell(f"{PROGRAM} plugins --json | head -c 1; echo ${{PIPESTATUS[0]}}", here)
    assert cut.stderr == b""
    assert cut.stdout.strip()[-1:] in (b"0", b"1")
    full = shell(f"{PROGRAM} plugins --json > /dev/full", here)
    assert full.returncode == 1
    assert full.stderr.count(b"\n") == 1
    assert shell(f"{PROGRAM} plugins nonsense 2> /dev/full", here).returncode == 2


@pytest.mark.parametrize(
    "where", ["~nosuchuser", "~nosuchuser/model", "no/such/\udcff", "no/" + "x" * 5000, "x" * 300]
)
def test_a_model_that_cannot_be_is_refused_in_one_line(refused, where):
    assert len(refused(3 if where == "x" * 300 else 2 if where[0] == "~" else 1, "", "sample", where)) < 301


@pytest.mark.parametrize("kind", ["mnist", "images"])
def test_a_data_set_in_nobodys_home(kind):
    import trilemma
    from trilemma.errors import UsageError

    with pytest.raises(UsageError, match="there is no home folder ~nosuchuser; give another"):
        trilemma.dataset(kind, root="~nosuchuser/data")


def test_a_file_name_that_is_no_text(tiny_model, here, capsys):
    name = os.fsdecode(b"caf\xe9.npz")
    assert main(["sample", str(tiny_model), "-n", "1", "--steps", "1", "-o", name, "--no-progress"]) == 0
    capsys.readouterr()
    assert os.listdir(os.fsencode(here)) == [b"caf\xe9.npz"]
    weights = os.fsdecode(b"./caf\xe9")
    record = {"guidance": f"autoguidance:model={weights}"}
    assert json.loads(to_json(record)) == record
    to_json(record).encode()


def test_a_card_with_a_byte_order_mark(model, here):
    card = model / "model.toml"
    card.write_bytes(b"\xef\xbb\xbf" + card.read_bytes())
    assert main(["sample", str(model), "-n", "1", "--steps", "1", "-o", "x.npz", "--no-progress", "-q"]) == 0
