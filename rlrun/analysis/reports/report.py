"""The report of a comparison: one HTML file that needs no other, and no network."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from rlrun.analysis.aggregates import Aggregates
from rlrun.analysis.comparison import Comparison
from rlrun.analysis.grouping import ABSENT, frozen, is_of_method, show_value, value_of
from rlrun.analysis.reports.pictures import COLORS, INK
from rlrun.analysis.reports.tables import NOTE, Cell, Column, Table, show, tables
from rlrun.analysis.stored_runs import StoredRun
from rlrun.errors import printable

TEMPLATE = Path(__file__).with_name("report.html")

# What a picture is about, by its name.
CAPTIONS = {
    "finals": "Final returns",
    "curves": "Evaluation returns against environment steps and against time",
    "profile": "Performance profile over tasks",
    "improvement": "Probability of improvement",
}


def report(
    comparison: Comparison,
    aggregates: Aggregates,
    *,
    cautions: Sequence[str],
    pictures: Mapping[str, bytes],
    command: str,
) -> str:
    """Write a comparison as a page.

    Args:
        comparison: what is compared.
        aggregates: over its tasks.
        cautions: lines that a reader has to know.
        pictures: SVG by name, transparent.
        command: what makes the same page again.
    """
    grouping = comparison.grouping
    title = f"{', '.join(grouping.methods)} on {', '.join(grouping.tasks)}"
    if len(title) > 120:
        title = f"{len(grouping.methods)} methods on {len(grouping.tasks)} tasks"
    settings = table_of_settings(comparison)
    budget = "" if comparison.steps is None else f" Compared at {comparison.steps:,} steps."
    parts = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{len(comparison.runs)} runs. {text(NOTE + budget)}</p>',
        boxed(cautions),
        *map(html_table, tables(comparison, aggregates)),
        scales(aggregates),
        *(figure(name, content) for name, content in pictures.items()),
        "<h2>What differs between the configs</h2>",
        folded(html_table(settings), f"{len(settings.rows)} settings by method"),
        "<h2>Runs</h2>",
        folded(list_of_runs(comparison), f"{len(comparison.runs)} runs"),
        "<h2>Versions</h2>",
        html_table(table_of_versions(comparison.runs)),
        "<h2>The same again</h2>",
        f"<pre>{text(command)}</pre>",
    ]
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=text(title), body="\n".join(parts))


def text(words: str) -> str:
    """Return text as HTML has it."""
    return escape(printable(words, also="\n"))


def boxed(cautions: Sequence[str]) -> str:
    """Write the cautions in a box of their own."""
    if not cautions:
        return ""
    lines = "\n".join(f"<li>{text(line)}</li>" for line in cautions)
    return f'<div class="cautions"><b>Cautions</b>\n<ul>\n{lines}\n</ul></div>'


def html_table(table: Table) -> str:
    """Write a table."""

    def entry(tag: str, column: Column, content: str) -> str:
        kind = ' class="number"' if column.is_number else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    heads = "".join(entry("th", column, text(column.head)) for column in table.columns)
    lines = []
    for number, row in enumerate(table.rows):
        cells = "".join(
            entry("td", column, f"<b>{text(cell.text)}</b>" if cell.bold else text(cell.text))
            for column, cell in zip(table.columns, row, strict=True)
        )
        lines.append(f"<tr{' class=end' if number in table.ends else ''}>{cells}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table><caption>{text(table.title)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def folded(content: str, summary: str) -> str:
    """Fold up what is long and seldom read."""
    return f"<details><summary>{text(summary)}</summary>\n{content}\n</details>"


def scales(aggregates: Aggregates) -> str:
    """Say what 0 and 1 stand for on each task's scale."""
    if not aggregates.tasks:
        return ""
    ends = (
        f"{task} {show(aggregates.scales[task].min)} to {show(aggregates.scales[task].max)}"
        for task in aggregates.tasks
    )
    return f'<p class="soft">Normalised scores are 0 to 1 for {text(", ".join(ends))}.</p>'


def figure(name: str, svg: bytes) -> str:
    """Put a picture into the page, whose text is in the page's own colour."""
    content = svg.decode()
    content = content[content.index("<svg") :]
    content = re.sub(f"{INK}|{COLORS[4]}", "currentColor", content)
    caption = CAPTIONS[name]
    content = content.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return f"<h2>{caption}</h2>\n<figure>{content}</figure>"


def table_of_settings(comparison: Comparison) -> Table:
    """Make a row of each setting that differs, and a column of each method."""
    methods = comparison.grouping.methods
    runs = {
        method: [
            run for (_, name), r in comparison.grouping.runs.items() if name == method for run in r
        ]
        for method in methods
    }
    keys = dict.fromkeys(k for run in comparison.runs for k in run.settings if is_of_method(k))

    def values(method: str, key: str) -> str:
        """Write the values that a method has, which can be others on another task."""
        found = (value_of(run.settings, key) for run in runs[method])
        present = {frozen(value): show_value(value) for value in found if value is not ABSENT}
        return " or ".join(present.values())

    rows = {key: [values(method, key) for method in methods] for key in keys}
    rows = {key: row for key, row in rows.items() if len(set(row)) > 1 or " or " in row[0]}
    return Table(
        title="An empty entry: the method has no such setting" if rows else "Nothing but the seeds",
        columns=[
            Column(head="setting", cells=[Cell(key) for key in rows], is_number=False),
            *(
                Column(head=method, cells=[Cell(row[i]) for row in rows.values()], is_number=False)
                for i, method in enumerate(methods)
            ),
        ],
    )


def list_of_runs(comparison: Comparison) -> str:
    """List all runs, with links."""
    places = {id(run): cell for cell, runs in comparison.grouping.runs.items() for run in runs}
    heads = ("task", "method", "seed", "final", "steps", "minutes", "code", "started", "run")
    rows = [row_of_run(run, *places[id(run)], show(run.final_return)) for run in comparison.runs]
    rows += [row_of_run(run, run.env_id, "left out", reason) for run, reason in comparison.left_out]
    head, body = "".join(f"<th>{head}</th>" for head in heads), "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def row_of_run(run: StoredRun, task: str, method: str, final: str) -> str:
    """Write a run's row of the list."""
    minutes = show(run.time_s / 60)
    facts = (task, method, str(run.seed), final, f"{run.last_step:,}", minutes)
    code = (run.commit or "")[:7], run.started or ""
    cells = "".join(f"<td>{text(fact)}</td>" for fact in (*facts, *code))
    return f"<tr>{cells}<td>{link(run.source)}</td></tr>"


def link(source: str) -> str:
    """Write where a run is, as a link if there is something to be opened."""
    if source.startswith("https://"):
        target = source
    elif Path(source).is_dir():
        target = Path(source).resolve().as_uri()
    else:  # an archive's run, whose directory is elsewhere
        return text(source)
    return f'<a href="{escape(target)}">{text(source)}</a>'


def table_of_versions(runs: Sequence[StoredRun]) -> Table:
    """Make a row of each package, and of the code itself."""
    versions: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, version in {"git commit": run.commit or "none", **run.versions}.items():
            versions.setdefault(name, {})[version] = None
    return Table(
        title="Of all runs",
        columns=[
            Column(head="package", cells=[Cell(name) for name in versions], is_number=False),
            Column(
                head="version",
                cells=[Cell(", ".join(found)) for found in versions.values()],
                is_number=False,
            ),
        ],
    )
