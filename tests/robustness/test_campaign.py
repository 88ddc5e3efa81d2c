"""Two thousand damaged files, each met by a command, end in one line that says what to do; see `campaign`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_thousand_damaged_files(tmp_path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("campaign.py"))],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["cases"] == 2000
    assert summary["bad"] == 0
    assert min(summary["kinds"].values()) > 50
    # Some damage is to a comment; most is not.
    assert 100 < summary["ended_well"] < 600
