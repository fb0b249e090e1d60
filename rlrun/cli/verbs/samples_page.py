"""What a policy wrote, as a page for people to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlrun.errors import printable

# The texts, which are shown as a row, and what the rows are grouped by.
TEXTS = ("prompt", "response")
WHICH = "which"


def samples_page(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Lay out samples: a table of the best, one of the worst, and one of others.

    Args:
        rows: of texts and numbers (``runs/language/responses.py: transcribed``).
    """
    kinds = dict.fromkeys(row[WHICH] for row in rows)
    return Group(*(page([row for row in rows if row[WHICH] == kind], kind) for kind in kinds))


def page(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Lay out some of the samples: their texts as they are, and each of their numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in TEXTS:
        table.add_column(name, overflow="fold")
    numbers = [name for name in rows[0] if name not in (*TEXTS, WHICH)]
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        texts = [Text(printable(row[name], also="\n")) for name in TEXTS]
        table.add_row(*texts, *(shown(row[name]) for name in numbers))
    return table


def shown(value: Any) -> str:
    """Write a number, or whether something is so."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
