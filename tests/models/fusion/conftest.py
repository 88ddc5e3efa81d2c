"""Small tensors go to the operators too: in these tests, as they would not be faster by them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trilemma.models.fusion import gating, kinds


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", tuple(replace(kind, least=0) for kind in kinds.KINDS))
    monkeypatch.setattr(gating, "LEAST", 0)
