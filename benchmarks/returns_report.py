"""JSON, table and figure of a returns benchmark, from the directories of its runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jobs import is_finished
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from measure import processor
from published import RESULTS, Level, budgets, level, show

from rlrun.analysis.statistics import (
    MIN_SEEDS,
    Scores,
    bootstrap_interval,
    interquartile_mean,
)
from rlrun.analysis.statistics import mean as mean_over_seeds
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs.figures import final_return

COLUMNS = (
    "environment",
    "steps",
    "seeds",
    "rlrun, mean ± std [95 %]",
    "IQM [95 %]",
    "published",
    "target",
    "best of these",
    "reached",
    "commit",
)


def write_report(root: Path, report: Path) -> str:
    """Write ``<report>.json``, ``.md`` and ``.png`` from the finished runs under a directory.

    An environment's row takes the place of one that an earlier benchmark wrote, maybe on another
    machine, when it is of as many seeds.

    Args:
        root: directory of one benchmark's runs.
        report: path without a suffix.

    Returns:
        The table.
    """
    runs = [read_run(path.parent) for path in sorted(root.glob("*/run.json")) if is_finished(path)]
    path = report.with_suffix(".json")
    earlier = json.loads(path.read_text())["environments"] if path.exists() else {}
    present = {*earlier, *(run["env"] for run in runs)}
    rows = {}
    for env in [*budgets(), *sorted(present - set(budgets()))]:
        of_env = [run for run in runs if run["env"] == env]
        if env in earlier and len(of_env) < len(earlier[env]["seeds"]):
            rows[env] = earlier[env]
        elif of_env:
            algo, steps = of_env[0]["algo"], of_env[0]["total_steps"]
            known = level(root.name, algo, env, total_steps=steps, results=RESULTS)
            rows[env] = summarize(of_env, known)
    return write(root.name, rows, report)


def retable(path: Path) -> str:
    """Write a report anew from its own JSON: what is known of others may have changed.

    Args:
        path: ``returns_<name>.json``.

    Returns:
        The table.
    """
    content = json.loads(path.read_text())
    name, rows = content["benchmark"], {}
    for env, row in content["environments"].items():
        runs = [{**run, "settings": row["settings"]} for run in row["runs"]]
        known = level(name, row["algo"], env, total_steps=row["total_steps"], results=path.parent)
        rows[env] = {**summarize(runs, known), "same_settings": row["same_settings"]}
    return write(name, rows, path.with_suffix(""))


def write(name: str, rows: dict[str, dict[str, Any]], report: Path) -> str:
    """Write the JSON, the table and the figure of a benchmark; return the table."""
    report.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "environments": rows}
    report.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    table = make_table(rows)
    report.with_suffix(".md").write_text(table + "\n")
    if rows:
        draw(rows, report.with_suffix(".png"))
    return table


def read_run(directory: Path) -> dict[str, Any]:
    """Return what a report needs to know of a finished run."""
    record = json.loads((directory / "run.json").read_text())
    evaluations = [
        (int(row["step"]), row["eval/return"])
        for row in read_metrics(directory / "metrics.jsonl")
        if "eval/return" in row
    ]
    config = yaml.safe_load((directory / "config.yaml").read_text())
    return {
        **{key: record[key] for key in ("algo", "env", "env_id", "seed", "total_steps", "step")},
        "return": final_return(evaluations, record["total_steps"]),
        "steps_per_s": round(record["step"] / record["time_s"], 1),
        "time_s": record["time_s"],
        "compile_s": record.get("compile_s", 0.0),
        "started": record["started"],
        "git_commit": record["git_commit"],
        "versions": record["versions"],
        "cpu": processor(),  # a report is written where its runs were
        "overrides": yaml.safe_load((directory / "overrides.yaml").read_text()),
        "settings": {key: config[key] for key in config if key not in ("seed", "run_dir")},
        "evaluations": evaluations,
    }


def summarize(runs: list[dict[str, Any]], known: Level | None) -> dict[str, Any]:
    """Return an environment's figures.

    Args:
        runs: as `read_run` returns them; they differ in their seeds.
        known: what others reach there, and what is to be reached.
    """
    runs = sorted(runs, key=lambda run: run["seed"])
    first = runs[0]
    returns = np.array([run["return"] for run in runs])  # [S]
    _, curves = common_curve(runs)
    mean, interval = float(returns.mean()), bootstrap(returns, mean_over_seeds)
    target, best = (None, None) if known is None else (known.target, known.best)
    return {
        "algo": first["algo"],
        "env_id": first["env_id"],
        "total_steps": first["total_steps"],
        "seeds": [run["seed"] for run in runs],
        "returns": returns.tolist(),
        "mean": mean,
        "mean_interval": interval,
        "std": deviation(returns),
        "iqm": float(interquartile_mean([returns])),
        "iqm_interval": bootstrap(returns, interquartile_mean),
        "max_of_mean": float(curves.mean(axis=0).max()),
        "published": known and known.published,
        "target": target,
        "target_met": None if target is None else mean >= target,
        "best": best,
        "reached": None if best is None else verdict(mean, interval, best),
        # Runs of one method differ in nothing but the seed: this has to be true.
        "same_settings": all(run["settings"] == first["settings"] for run in runs),
        "settings": first["settings"],
        "runs": [{key: run[key] for key in run if key != "settings"} for run in runs],
    }


def bootstrap(
    returns: np.ndarray, statistic: Callable[[Scores], np.ndarray]
) -> tuple[float, float] | None:
    """Return the bootstrap interval of a statistic of returns [S]; None of too few."""
    if len(returns) < MIN_SEEDS:
        return None
    low, high = bootstrap_interval(statistic, [returns])
    return float(low), float(high)


def verdict(mean: float, interval: tuple[float, float] | None, best: float) -> str:
    """Compare a method with the best that is published: a mean with a mean.

    Args:
        mean: over seeds.
        interval: of that mean; None: too few seeds for one.
        best: what others reach.

    Returns:
        ``above`` if the whole interval is at least the best, ``within`` if the best lies in it,
        ``n % short`` if even its upper end is below, by so much of the best.
    """
    low, high = (mean, mean) if interval is None else interval
    if low >= best:
        return "above"
    if high >= best:
        return "within"
    return f"{(best - mean) / abs(best):.0%} short".replace("%", " %")


def deviation(values: np.ndarray) -> float | None:
    """Sample standard deviation of [S] values; None of a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def common_curve(runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps [P] at which the first run was evaluated, and all returns there, [S, P].

    Runs of whole episodes are evaluated at steps of their own: between them the curve of a run is
    a straight line, and behind them, by less than one iteration, it is flat.
    """
    curves = [np.array(run["evaluations"], float).T for run in runs]  # steps and returns, [2, P]
    steps = curves[0][0]
    return steps, np.array([np.interp(steps, *curve) for curve in curves])


def make_table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table of the environments' figures (`summarize`)."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for env, row in rows.items():
        mean = show(row["mean"])
        if row["std"] is not None:
            mean += f" ± {show(row['std'])}"
        mean += show_interval(row["mean_interval"])
        target, best = "", ""
        if row["target"] is not None:
            target = f"{show(row['target'])}{'' if row['target_met'] else ': missed'}"
        if row["best"] is not None:
            best = show(row["best"])
        cells = [
            env if row["same_settings"] else f"{env} (runs with different settings!)",
            f"{row['total_steps']:,}",
            str(len(row["seeds"])),
            mean,
            show(row["iqm"]) + show_interval(row["iqm_interval"]),
            row["published"] or "",
            target,
            best,
            row["reached"] or "",
            ", ".join(sorted({run["git_commit"][:7] for run in row["runs"]})),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def show_interval(interval: tuple[float, float] | None) -> str:
    """Write an interval, behind a blank; nothing if there is none."""
    return "" if interval is None else " [{}, {}]".format(*map(show, interval))


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw mean ± standard deviation of the evaluation returns of every environment as a PNG."""
    columns = min(4, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels[len(rows) :]:
        axes.remove()
    for axes, row in zip(panels, rows.values(), strict=False):
        steps, curves = common_curve(row["runs"])
        mean = curves.mean(axis=0)
        if len(curves) > 1:
            std = curves.std(axis=0, ddof=1)
            axes.fill_between(steps, mean - std, mean + std, color="#08519c", alpha=0.2, lw=0)
        axes.plot(steps, mean, color="#08519c", lw=1.6)
        if row["target"] is not None:
            axes.axhline(row["target"], color="0.4", lw=1, ls="--")
        axes.set_title(f"{row['env_id']} (n = {len(curves)})", fontsize=10)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", lw=0.8)
        axes.set_xlim(left=0)
        axes.tick_params(labelsize=8)
    figure.supxlabel("environment steps", fontsize=10)
    figure.supylabel("evaluation return", fontsize=10)
    figure.suptitle("mean ± std over seeds; dashed: target", fontsize=9, color="0.4")
    FigureCanvasAgg(figure).print_png(path)
