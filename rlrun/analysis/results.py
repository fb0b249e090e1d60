"""All that there is to say of a comparison, and the forms in which it is said."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from rlrun.analysis.aggregates import Aggregates, Scale, aggregate, published_file, read_scales
from rlrun.analysis.cautions import cautions
from rlrun.analysis.comparison import Comparison, compare
from rlrun.analysis.reports.formats import comma_separated, for_terminal, latex, markdown
from rlrun.analysis.reports.tables import NOTE, tables
from rlrun.analysis.sources import archive_text
from rlrun.analysis.stored_runs import StoredRun
from rlrun.errors import printable
from rlrun.runs.files.disk import replacing


@dataclass(frozen=True, kw_only=True)
class Result:
    """All that there is to say of a comparison.

    Attributes:
        runs: all that were read, whole.
        comparison: the methods beside each other.
        aggregates: over their tasks.
        cautions: what a reader has to know.
        command: what says the same again.
    """

    runs: list[StoredRun]
    comparison: Comparison
    aggregates: Aggregates
    cautions: list[str]
    command: str


def examine(
    runs: Sequence[StoredRun],
    *,
    command: str,
    by: Sequence[str] = (),
    steps: int | None = None,
    thresholds: Mapping[str, float] | None = None,
    scales: Mapping[str, Scale] | None = None,
) -> Result:
    """Compare runs, and say what has to be known of it.

    Args:
        runs: of any methods on any tasks.
        command: what says the same again.
        by: see :func:`rlrun.analysis.comparison.compare`, as of the next two.
        steps: the common budget.
        thresholds: returns to reach.
        scales: of normalised scores, by id or choice of the environment; None: the published ones.

    Raises:
        UserError: the runs cannot be compared.
    """
    if scales is None:
        scales = read_scales(published_file())
    comparison = compare(runs, by=by, steps=steps, thresholds=thresholds)
    return Result(
        runs=list(runs),
        comparison=comparison,
        aggregates=aggregate(comparison, scales),
        cautions=cautions(comparison),
        command=command,
    )


def show(result: Result, terminal: Console) -> None:
    """Print a comparison on a terminal, or where its output goes."""
    for table in tables(result.comparison, result.aggregates):
        terminal.print(for_terminal(table, terminal))
    for line in result.cautions:
        terminal.print(Text(f"! {printable(line)}", style="yellow"))
    terminal.print(Text(NOTE, style="dim"))


def as_markdown(result: Result) -> str:
    """Return the tables and cautions in Markdown."""
    parts = []
    for table in tables(result.comparison, result.aggregates):
        parts.append(f"{table.title}:\n\n{markdown(table)}\n\n")
    parts.append(f"{NOTE}\n")
    if result.cautions:
        parts.append("\n" + "".join(f"- {printable(line)}\n" for line in result.cautions))
    return "".join(parts)


def as_latex(result: Result) -> str:
    """Return the tables in LaTeX."""
    found = tables(result.comparison, result.aggregates)
    return "\n\n".join(map(latex, found)) + "\n"


def as_csv(result: Result) -> str:
    """Return the figures as CSV."""
    return comma_separated(result.comparison)


def as_json(result: Result) -> str:
    """Return the figures, and the runs whole: an archive, from which they are computed again."""
    return archive_text(
        result.runs,
        command=result.command,
        figures=[
            {**row.numbers(), "seeds": row.seeds, "finals": row.finals.tolist()}
            for row in result.comparison.figures.values()
        ],
        aggregates=aggregates_as_json(result.aggregates),
        cautions=result.cautions,
    )


def aggregates_as_json(aggregates: Aggregates) -> dict[str, Any]:
    """Return what is known over tasks as JSON has it."""
    return {
        "tasks": aggregates.tasks,
        "scales": {task: asdict(scale) for task, scale in aggregates.scales.items()},
        "figures": {
            method: {name: asdict(estimate) for name, estimate in row.items()}
            for method, row in aggregates.figures.items()
        },
        "improvements": [asdict(row) for row in aggregates.improvements],
    }


# The files of a comparison, beside the pictures and the report.
FILES = {
    "table.md": as_markdown,
    "table.tex": as_latex,
    "figures.csv": as_csv,
    "archive.json": as_json,
}


def write_files(result: Result, directory: Path, *, smooth: int) -> str:
    """Write the tables in all formats, the pictures, the archive and the report.

    Args:
        result: of the comparison.
        directory: where they go; files of the same names are replaced.
        smooth: evaluations that a point of a curve is the mean of.

    Returns:
        The report, as HTML.

    Raises:
        OSError: they cannot be written there.
    """
    # They import matplotlib, for which nobody waits who wants a table.
    from rlrun.analysis.reports.pictures import as_bytes
    from rlrun.analysis.reports.report import report
    from rlrun.analysis.reports.score_pictures import pictures

    drawn = pictures(result.comparison, result.aggregates, smooth=smooth)
    page = report(
        result.comparison,
        result.aggregates,
        cautions=result.cautions,
        pictures={name: as_bytes(fig, "svg", background="none") for name, fig in drawn.items()},
        command=result.command,
    )
    contents = {name: write(result).encode() for name, write in FILES.items()}
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            contents[f"{name}.{kind}"] = as_bytes(figure, kind)
    contents["report.html"] = page.encode()
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replacing(directory / name) as file:
            file.write(content)
    return page
