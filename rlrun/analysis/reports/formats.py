"""Tables as text: for a terminal, Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from rlrun.analysis.comparison import Comparison
from rlrun.analysis.reports.tables import Column, Table
from rlrun.errors import printable

# Characters of a terminal in which every table has room.
UNBOUNDED = 100_000

# What TeX reads as something else.
TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
}
TEX_CHARACTERS = re.compile("|".join(map(re.escape, TEX)))


def for_terminal(table: Table, console: Console) -> Group:
    """Draw a table as wide as a terminal; where there is no room, columns leave it.

    Args:
        table: any.
        console: of the terminal.
    """
    columns, left = list(table.columns), []
    drawn = draw(table, columns)
    unbounded = console.options.update(width=UNBOUNDED)
    while Measurement.get(console, unbounded, drawn).maximum > console.width:
        leaving = max(columns, key=lambda column: column.leaves)
        if not leaving.leaves:
            break  # what is left wraps
        columns.remove(leaving)
        left.append(leaving.head)
        drawn = draw(table, columns)
    remark = [Text(f"no room for: {', '.join(left)}", style="dim")] if left else []
    return Group(Text(printable(table.title), style="bold"), drawn, *remark)


def draw(table: Table, columns: Sequence[Column]) -> RichTable:
    """Draw some columns of a table."""
    drawn = RichTable(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        drawn.add_column(
            Text(printable(column.head)),
            justify="right" if column.is_number else "left",
            overflow="fold",
        )
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        drawn.add_row(
            *(Text(printable(cell.text), style="bold" if cell.bold else "") for cell in cells),
            end_section=number in table.ends,
        )
    return drawn


def markdown(table: Table) -> str:
    """Write a table in Markdown."""
    rule = ("--:" if column.is_number else "---" for column in table.columns)
    lines = [f"| {' | '.join(map(_escaped, table.heads))} |", f"|{'|'.join(rule)}|"]
    for row in table.rows:
        cells = (f"**{_escaped(cell.text)}**" if cell.bold else _escaped(cell.text) for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return printable(text).replace("|", r"\|")


def latex(table: Table) -> str:
    """Write a table in LaTeX, for the package booktabs."""
    kinds = "".join("r" if column.is_number else "l" for column in table.columns)
    lines = [
        rf"% {printable(table.title)}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        rf"{' & '.join(map(tex, table.heads))} \\",
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        cells = (rf"\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text) for cell in row)
        lines.append(rf"{' & '.join(cells)} \\")
        if number in table.ends:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def tex(text: str) -> str:
    """Write text so that TeX sets it as it is."""
    return TEX_CHARACTERS.sub(lambda match: TEX[match[0]], printable(text))


def comma_separated(comparison: Comparison) -> str:
    """Write the figures as CSV: numbers as they are, a row for each task and method."""
    output = io.StringIO()
    rows = [row.numbers() for row in comparison.figures.values()]
    writer = csv.DictWriter(output, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue()
