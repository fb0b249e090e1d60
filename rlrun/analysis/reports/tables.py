"""The tables of a comparison: what stands in them, whatever they are written as."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlrun.analysis.aggregates import STATISTICS, Aggregates, Estimate
from rlrun.analysis.comparison import Comparison, Figures, Interval
from rlrun.analysis.statistics import MIN_SEEDS

NOTE = (
    "A run's figure is the mean of its evaluations in the last 10 % of its steps. Mean ± sample "
    "standard deviation, and interquartile mean (IQM) with its stratified-bootstrap 95 % interval, "
    "over seeds. Bold: the whole interval is above those of all other methods."
)


class Cell(NamedTuple):
    """An entry of a table.

    Attributes:
        text: what stands there.
        bold: whether it stands out.
    """

    text: str
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        head: its name.
        cells: its entries, from the top.
        is_number: whether they are numbers, which stand on the right.
        leaves: when it leaves a table that is too wide: the highest first, 0 never.
    """

    head: str
    cells: list[Cell]
    is_number: bool = True
    leaves: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        title: what it shows.
        columns: of equal length.
        ends: rows behind which a part of it ends.
    """

    title: str
    columns: list[Column]
    ends: Sequence[int] = ()

    @property
    def heads(self) -> list[str]:
        """The columns' names."""
        return [column.head for column in self.columns]

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The entries, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


def tables(comparison: Comparison, aggregates: Aggregates) -> list[Table]:
    """Return the tables of a comparison, those for a first look first."""
    found = [table_of_figures(comparison)]
    if len(comparison.grouping.compared_tasks) > 1:
        found.insert(0, table_of_methods(comparison))
    if aggregates.figures:
        found.append(table_of_aggregates(aggregates))
    if aggregates.improvements:
        found.append(table_of_improvements(aggregates))
    return found


def table_of_methods(comparison: Comparison) -> Table:
    """Make a row of each method, and a column of each task that several have: mean ± deviation."""
    grouping = comparison.grouping

    def cell(task: str, method: str) -> Cell:
        row = comparison.figures.get((task, method))
        return Cell("") if row is None else Cell(show_mean(row), row.stands_out)

    return Table(
        title="Final return, mean ± standard deviation over seeds",
        columns=[
            Column(head="", cells=[Cell(m) for m in grouping.methods], is_number=False),
            *(
                Column(
                    head=f"{task}, {show_steps(comparison, task)}",
                    cells=[cell(task, method) for method in grouping.methods],
                    leaves=number,
                )
                for number, task in enumerate(grouping.compared_tasks)
            ),
        ],
    )


def table_of_figures(comparison: Comparison) -> Table:
    """Make a row of each task and method, and a column of each figure."""
    rows = list(comparison.figures.values())
    reached = any(row.reached for row in rows)

    def column(head: str, write: Callable[[Figures], str], **others: Any) -> Column:
        return Column(head=head, cells=[Cell(write(row)) for row in rows], **others)

    return Table(
        title="Figures by task and method",
        columns=[
            column("task", lambda row: row.task, is_number=False),
            column("method", lambda row: row.method, is_number=False),
            column("n", lambda row: str(len(row.finals))),
            column("final, mean ± std", show_mean),
            Column(
                head="IQM [95 %]",
                cells=[Cell(show_iqm(row), row.stands_out) for row in rows],
            ),
            column("best", lambda row: show(row.best), leaves=5),
            column("area", lambda row: show(row.area), leaves=6),
            *(
                [
                    column("threshold", show_threshold, leaves=2),
                    column("reached by", lambda row: show_reaching_seeds(row), leaves=3),
                    column("after steps", lambda row: show_when(row, "steps"), leaves=1),
                    column("after minutes", lambda row: show_when(row, "minutes"), leaves=4),
                ]
                if reached
                else []
            ),
        ],
        ends=[i for i in range(len(rows) - 1) if rows[i].task != rows[i + 1].task],
    )


def table_of_aggregates(aggregates: Aggregates) -> Table:
    """Make a row of each method, and a column of each statistic over tasks."""
    return Table(
        title=f"Normalised scores over {len(aggregates.tasks)} tasks, [95 % interval]",
        columns=[
            Column(head="", cells=[Cell(m) for m in aggregates.figures], is_number=False),
            *(
                Column(
                    head=name,
                    cells=[Cell(show_estimate(row[name])) for row in aggregates.figures.values()],
                )
                for name in STATISTICS
            ),
        ],
    )


def table_of_improvements(aggregates: Aggregates) -> Table:
    """Make a row of each pair of methods."""
    rows = aggregates.improvements

    def cell(estimate: Estimate) -> Cell:
        decided = estimate.interval is not None and not (
            estimate.interval[0] <= 0.5 <= estimate.interval[1]
        )
        return Cell(show_estimate(estimate), decided)

    return Table(
        title="Probability of improvement: that a run of X beats one of Y",
        columns=[
            Column(head="X", cells=[Cell(row.method) for row in rows], is_number=False),
            Column(head="Y", cells=[Cell(row.other) for row in rows], is_number=False),
            Column(head="tasks", cells=[Cell(str(len(row.tasks))) for row in rows]),
            Column(head="P(X > Y) [95 %]", cells=[cell(row.probability) for row in rows]),
        ],
    )


def show(value: float) -> str:
    """Write a number with the digits that matter; nothing for one that there is not."""
    if not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show_mean(row: Figures) -> str:
    """Write a mean with its standard deviation over seeds."""
    spread = f" ± {show(row.deviation)}" if math.isfinite(row.deviation) else ""
    return show(row.mean) + spread


def show_interval(interval: Interval | None) -> str:
    """Write an interval, behind a blank; nothing if there is none."""
    return "" if interval is None else " [{}, {}]".format(*map(show, interval))


def show_iqm(row: Figures) -> str:
    """Write an interquartile mean with its interval, or that there is none."""
    if row.interval is None:
        return f"{show(row.iqm)} (n < {MIN_SEEDS})"
    return show(row.iqm) + show_interval(row.interval)


def show_estimate(estimate: Estimate) -> str:
    """Write a statistic of normalised scores with its interval, or that there is none."""
    if estimate.interval is None:
        return f"{estimate.value:.3f} (n < {MIN_SEEDS})"
    return "{:.3f} [{:.3f}, {:.3f}]".format(estimate.value, *estimate.interval)


def show_threshold(row: Figures) -> str:
    """Write the return that is to be reached."""
    return "" if row.reached is None else show(row.reached.threshold)


def show_reaching_seeds(row: Figures) -> str:
    """Write how many seeds reached it."""
    return "" if row.reached is None else f"{row.reached.seeds} of {len(row.finals)}"


def show_when(row: Figures, unit: str) -> str:
    """Write the steps or minutes in which half of the seeds reached it."""
    if row.reached is None:
        return ""
    value = {"steps": row.reached.steps, "minutes": row.reached.minutes}[unit]
    return "–" if math.isinf(value) else show(value)


def show_steps(comparison: Comparison, task: str) -> str:
    """Write the budget of a task's runs in millions: "1 M", or "0.1 to 1 M"."""
    rows = [row for row in comparison.figures.values() if row.task == task]
    fewest, most = min(row.steps[0] for row in rows), max(row.steps[1] for row in rows)
    low = f"{fewest / 1e6:g} to " if fewest < most else ""
    return f"{low}{most / 1e6:g} M"
