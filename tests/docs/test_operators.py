"""docs/kernels.md names every operator that a backend may bring, as it is called."""

from __future__ import annotations

import inspect
import re

from documentation.blocks import ROOT

from trilemma import ops
from trilemma.bench.cells import ALL_CELLS

ROW = re.compile(r"^\| `(\w+)` \| (.+) \|$", re.M)


def test_the_table_is_complete_and_right():
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    rows = dict(ROW.findall(page))
    assert set(rows) == set(ALL_CELLS)
    for name, said in rows.items():
        function = getattr(ops, name, None)
        if function is None:
            assert said == f"as `{name.removesuffix('_backward')}`, whose gradient is meant"
            continue
        signature = inspect.signature(function)
        bare = [entry.replace(annotation=inspect.Parameter.empty) for entry in signature.parameters.values()]
        assert said == f"`{name}{inspect.Signature(bare)}`"
