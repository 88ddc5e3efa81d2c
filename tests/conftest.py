"""Fixtures that several test folders share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# For `support`.
sys.path.append(str(Path(__file__).parent))

REPOSITORY = Path(__file__).resolve().parent.parent
NEIGHBOUR = REPOSITORY.parent / "shared" / "data"

if "TRILEMMA_DATA" not in os.environ and NEIGHBOUR.is_dir():
    os.environ["TRILEMMA_DATA"] = str(NEIGHBOUR)

# Embeddings that a test's training keeps on disk are not those of the user.
if "TRILEMMA_CACHE" not in os.environ:
    os.environ["TRILEMMA_CACHE"] = tempfile.mkdtemp(prefix="trilemma-tests-")
    atexit.register(shutil.rmtree, os.environ["TRILEMMA_CACHE"], ignore_errors=True)

# Nor do tests choose by what was measured on the machine.
os.environ["TRILEMMA_CALIBRATION"] = "off"

# A shell starts its background jobs with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    root = Path(os.environ.get("TRILEMMA_DATA", "data"))
    if not (root / "mnist").is_dir():
        pytest.skip(f"no data in {root}; set TRILEMMA_DATA to a folder that holds mnist/")
    return root


@pytest.fixture(autouse=True)
def global_generator_untouched():
    """No test, and nothing under test, may leave its draws in torch's global generator."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture
def one_line() -> Callable[[BaseException], str]:
    """The message of an error, which must be one line that ends in what to do."""

    def check(error: BaseException) -> str:
        message = str(error)
        assert message
        assert "\n" not in message
        assert ";" in message
        return message

    return check


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, type], None]:
    """Registers a class of a test module as a component of a kind, for this test: register(kind, name, cls)."""
    from trilemma.registry import Catalog, PluginRecord, manager
    from trilemma.registry.specs import SPECS

    def add(kind: str, name: str, target: type) -> None:
        (described,) = [spec for spec in SPECS if spec.kind == kind]
        spec = described(name, f"{target.__module__}:{target.__qualname__}", "a component of a test")
        record = PluginRecord("tests", "0", name, target.__module__, components=(spec,))
        monkeypatch.setattr(manager, "_catalog", Catalog([*manager.catalog().records, record]))

    return add
