"""Puts the returns of all methods side by side: ``results/returns_family.{md,png}``.

    python benchmarks/returns_family.py

Reads the ``results/returns_<name>.json`` that `returns.py` wrote, for the methods that stand in
``published.yaml``; trains nothing.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from published import RESULTS, budgets, published, show

# Of one method, by environment: what `returns_report.summarize` returned.
Rows = dict[str, dict[str, Any]]


def read_methods(results: Path) -> dict[str, Rows]:
    """Return the methods that have results, in the order of ``published.yaml``."""
    methods = {}
    for name in published()["methods"]:
        path = results / f"returns_{name}.json"
        if path.exists():
            methods[name] = json.loads(path.read_text())["environments"]
    return methods


def common_environments(methods: dict[str, Rows]) -> list[str]:
    """Return the environments on which more than one method was trained, in the order of work."""
    return [env for env in budgets() if sum(env in rows for rows in methods.values()) > 1]


def make_table(methods: dict[str, Rows], envs: list[str]) -> str:
    """Return the Markdown table: methods down, environments across."""
    steps = {
        env: max(rows[env]["total_steps"] for rows in methods.values() if env in rows)
        for env in envs
    }
    heads = (f"{env}, {steps[env] / 1e6:g} M" for env in envs)
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'--:|' * len(envs)}"]
    for name, rows in methods.items():
        cells = (make_cell(rows[env], steps[env]) if env in rows else "" for env in envs)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Mean ± standard deviation over seeds of the evaluations in the last 10 % of the steps "
        "(millions, in the head). **Bold**: met the target of the method there; *italic*: missed "
        "it; plain: there is none.",
    ]
    return "\n".join(lines)


def make_cell(row: dict[str, Any], steps: int) -> str:
    """Return one entry of the table; it says so if the runs had other seeds or fewer steps."""
    text = show(row["mean"])
    if row["std"] is not None:
        text += f" ± {show(row['std'])}"
    if row["target_met"] is not None:
        text = f"**{text}**" if row["target_met"] else f"*{text}*"
    remarks = []
    if len(row["seeds"]) != 5:
        remarks.append(f"n = {len(row['seeds'])}")
    if row["total_steps"] != steps:
        remarks.append(f"{row['total_steps'] / 1e6:g} M")
    return f"{text} ({', '.join(remarks)})" if remarks else text


def draw(methods: dict[str, Rows], envs: list[str], path: Path) -> None:
    """Draw every run's final return, and each method's interquartile mean, as a PNG."""
    columns = min(4, len(envs))
    lines = math.ceil(len(envs) / columns)
    size = (1.2 + 2.6 * columns, 0.9 + lines * (0.7 + 0.22 * len(methods)))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
    names = list(methods)
    for axes in panels[len(envs) :]:
        axes.remove()
    for axes, env in zip(panels, envs, strict=False):
        for height, name in enumerate(names):
            row = methods[name].get(env)
            if row is None:
                continue
            returns = row["returns"]
            axes.plot(returns, [height] * len(returns), "o", color="#6baed6", ms=3.5, alpha=0.7)
            if row["iqm_interval"] is not None:
                axes.plot(row["iqm_interval"], [height] * 2, color="#08519c", lw=1.6)
            axes.plot(row["iqm"], height, "|", color="#08519c", ms=10, mew=2)
            if row["target"] is not None:
                axes.plot(row["target"], height, "x", color="#d95f0e", ms=5, mew=1.5)
        axes.set_title(env, fontsize=10)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", lw=0.8)
        axes.set_axisbelow(True)
    figure.supxlabel("evaluation return in the last 10 % of the steps", fontsize=10)
    figure.suptitle(
        "● a seed   | interquartile mean, with its 95 % interval   × to be reached",
        fontsize=9,
        color="0.3",
    )
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    """Write the table and the figure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    results = parser.parse_args().results
    methods = read_methods(results)
    envs = common_environments(methods)
    if not envs:
        parser.error(f"no two methods in {results} have an environment in common")
    table = make_table(methods, envs)
    (results / "returns_family.md").write_text(table + "\n")
    draw(methods, envs, results / "returns_family.png")
    print(table)


if __name__ == "__main__":
    main()
