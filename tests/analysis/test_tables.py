"""What stands in the tables, and how they are written."""

import csv
import io

import pytest
from made_runs import made_run, seeds
from rich.console import Console

from rlrun.analysis.aggregates import Scale, aggregate
from rlrun.analysis.comparison import compare
from rlrun.analysis.reports.formats import comma_separated, for_terminal, latex, markdown, tex
from rlrun.analysis.reports.tables import Cell, Column, Table, show, tables

SCALES = {"hopper": Scale(min=0.0, max=100.0), "walker2d": Scale(min=0.0, max=100.0)}


def made(*runs, **options):
    comparison = compare([run for some in runs for run in some], **options)
    return tables(comparison, aggregate(comparison, SCALES))


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


@pytest.fixture
def two_tasks():
    """Two methods on two tasks, of which one stands out on one."""
    return made(
        *(seeds("ppo", [10, 20, 30]), seeds("sac", [90, 91, 92])),
        *(seeds("ppo", [1000, 2000, 3000], "walker2d"), seeds("sac", [1, 2], "walker2d")),
    )


def test_of_one_task_there_are_its_figures_and_pairs():
    titles = [table.title for table in made(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2, 3]))]
    assert titles == [
        "Figures by task and method",
        "Probability of improvement: that a run of X beats one of Y",
    ]


def test_methods_and_tasks(two_tasks):
    table = two_tasks[0]
    assert table.heads == ["", "Hopper-v5, 0.001 M", "Walker2d-v5, 0.001 M"]
    assert texts(table) == [["ppo", "20 ± 10", "2,000 ± 1,000"], ["sac", "91 ± 1", "1.5 ± 0.7071"]]
    assert [[cell.bold for cell in row] for row in table.rows] == [
        [False] * 3,
        [False, True, False],
    ]


def test_a_task_of_one_method_is_not_among_those_compared():
    (first, *_) = made(
        *(seeds("ppo", [1, 2, 3], env) for env in ("hopper", "walker2d", "cartpole")),
        *(seeds("sac", [1, 2, 3], env) for env in ("hopper", "walker2d")),
    )
    assert len(first.columns) == 3


def test_figures(two_tasks):
    table = two_tasks[1]
    assert table.heads == [
        "task",
        "method",
        "n",
        "final, mean ± std",
        "IQM [95 %]",
        "best",
        "area",
        *("threshold", "reached by", "after steps", "after minutes"),
    ]
    assert texts(table)[1] == [
        *("Hopper-v5", "sac", "3", "91 ± 1", "91 [90, 92]", "91", "45.5"),
        *("3,800", "0 of 3", "–", "–"),
    ]
    assert texts(table)[3][4] == "1.5 (n < 3)"
    assert table.ends == [1]


def test_without_thresholds_there_are_no_columns_of_them():
    (table,) = made([made_run(env="mine", env_id="Mine-v0")])
    assert table.heads[-1] == "area"


def test_when_a_threshold_was_reached():
    table = made(seeds("ppo", [10, 20, 30]), thresholds={"": 15.0})[0]
    assert texts(table)[0][-4:] == ["15", "2 of 3", "1,000", "0.3333"]


def test_statistics_over_tasks(two_tasks):
    assert two_tasks[2].title == "Normalised scores over 2 tasks, [95 % interval]"
    assert two_tasks[2].heads == ["", "IQM", "median", "mean", "optimality gap"]
    assert texts(two_tasks[2])[1][3] == "0.463 (n < 3)"  # on one of the tasks
    (pair,) = texts(two_tasks[3])
    assert pair == ["ppo", "sac", "2", "0.500 (n < 3)"]


def test_a_pair_is_bold_where_it_is_decided():
    decided, open_ = (
        made(seeds("ppo", finals), seeds("sac", [5, 6, 7]))[-1].rows[0][-1]
        for finals in ([1, 2, 3], [4, 6, 8])
    )
    assert decided.bold
    assert not open_.bold


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (0.12344, "0.1234"), (-72.274, "-72.27"), (999.94, "999.9")),
        *((1000.4, "1,000"), (1234567.0, "1,234,567"), (float("nan"), ""), (float("inf"), "")),
    ],
)
def test_numbers_have_the_digits_that_matter(value, text):
    assert show(value) == text


# ---------------------------------------------------------------------- formats

TABLE = Table(
    title="A | b_c",
    columns=[
        Column(head="name", cells=[Cell("a|b"), Cell("c_d", True)], is_number=False),
        Column(head="50 %", cells=[Cell("1 ± 2"), Cell("3 & 4")], leaves=1),
        Column(head="x^2", cells=[Cell("–"), Cell("\\~{}")], leaves=2),
    ],
    ends=[0],
)


def test_markdown():
    assert markdown(TABLE).splitlines() == [
        "| name | 50 % | x^2 |",
        "|---|--:|--:|",
        r"| a\|b | 1 ± 2 | – |",
        r"| **c_d** | 3 & 4 | \~{} |",
    ]


def test_latex():
    assert latex(TABLE).splitlines() == [
        "% A | b_c",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"name & 50 \% & x\textasciicircum{}2 \\",
        r"\midrule",
        r"a|b & 1 $\pm$ 2 & -- \\",
        r"\midrule",
        r"\textbf{c\_d} & 3 \& 4 & \textbackslash{}\textasciitilde{}\{\} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert tex("γ = 0.99") == "γ = 0.99"


def test_csv_has_the_numbers_as_they_are():
    comparison = compare([*seeds("ppo", [1 / 3, 2, 3]), *seeds("sac", [1, 2])])
    rows = list(csv.DictReader(io.StringIO(comma_separated(comparison))))
    assert [row["method"] for row in rows] == ["ppo", "sac"]
    assert float(rows[0]["mean"]) == (1 / 3 + 2 + 3) / 3
    assert rows[1]["iqm_low"] == ""
    assert rows[0]["stands_out"] == "False"


def drawn(table, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(for_terminal(table, console))
    return console.file.getvalue()


def test_a_wide_terminal_has_all_columns(two_tasks):
    text = drawn(two_tasks[1], 160)
    assert "area" in text
    assert "after minutes" in text
    assert "no room" not in text
    assert max(map(len, text.splitlines())) <= 160


@pytest.mark.parametrize("width", [100, 80, 60])
def test_columns_leave_a_narrow_terminal_in_their_order(two_tasks, width):
    text = drawn(two_tasks[1], width)
    assert "IQM [95 %]" in text
    assert "91 [90, 92]" in text
    assert "no room for: area" in text
    assert "area" not in text.partition("no room")[0]
    assert max(map(len, text.splitlines())) <= width


def test_a_terminal_without_room_for_anything_still_shows_all(two_tasks):
    text = drawn(two_tasks[1], 20)
    assert "…" not in text
    assert {*"task", *"[90, 92]"} <= set(text.partition("no room")[0])


def test_the_last_tasks_leave_a_narrow_terminal_first(two_tasks):
    text = drawn(two_tasks[0], 30)
    assert "Hopper-v5" in text
    assert "no room for: Walker2d-v5" in text


def test_a_terminal_obeys_nothing_that_a_name_says():
    hostile = Column(head="a\x1b[2J", cells=[Cell("b\x1b]0;x\x07\nc")])
    text = drawn(Table(title="t\x1b[31m", columns=[hostile]), 80)
    assert "\x1b" not in text
    assert r"b\x1b]0;x\x07\nc" in text
    assert "\x1b" not in markdown(Table(title="t", columns=[hostile]))
    assert "\x1b" not in latex(Table(title="t\x1b", columns=[hostile]))
