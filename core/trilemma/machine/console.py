"""The console that tables are printed on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Returns a console as wide as the terminal; a pipe has no width, and rows stay whole there for grep."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False, emoji=False)


def plain_table(*columns: str) -> Table:
    """Returns a table without lines whose cells fold where they do not fit; without columns, one without a header."""
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, show_header=bool(columns))
    for column in table.columns:
        column.overflow = "fold"
    return table
