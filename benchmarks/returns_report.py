"""JSON, table and figure of a returns benchmark, from the directories of its runs."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jobs import is_finished
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from published import RESULTS, Level, budgets, level

from rlrun.analysis.cautions import commit
from rlrun.analysis.reports.tables import show, show_interval
from rlrun.analysis.sources import archive_text, read_archive
from rlrun.analysis.statistics import (
    MIN_SEEDS,
    Scores,
    bootstrap_interval,
    interquartile_mean,
)
from rlrun.analysis.statistics import mean as mean_over_seeds
from rlrun.analysis.stored_runs import StoredRun, read_run

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

    An environment's runs take the place of those that an earlier benchmark wrote, maybe on another
    machine, when they are as many.

    Args:
        root: directory of one benchmark's runs.
        report: path without a suffix.

    Returns:
        The table.
    """
    found = [read_run(path.parent) for path in sorted(root.glob("*/run.json")) if is_finished(path)]
    path = report.with_suffix(".json")
    runs = by_env(read_archive(path)) if path.exists() else {}
    for env, later in by_env(found).items():
        if len(later) >= len(runs.get(env, [])):
            runs[env] = later
    return write(root.name, runs, report, RESULTS)


def retable(path: Path) -> str:
    """Write a report anew from its own JSON: what is known of others may have changed.

    Args:
        path: ``returns_<name>.json``.

    Returns:
        The table.
    """
    name = path.stem.removeprefix("returns_")
    return write(name, by_env(read_archive(path)), path.with_suffix(""), path.parent)


def write(name: str, runs: Mapping[str, list[StoredRun]], report: Path, results: Path) -> str:
    """Write the JSON, the table and the figure of a benchmark.

    The JSON has the runs whole: an archive, which `rlrun compare` reads.

    Args:
        name: of the benchmark.
        runs: by environment.
        report: path without a suffix.
        results: directory of the benchmarks to compare with.

    Returns:
        The table.
    """
    order = list(budgets())
    envs = sorted(runs, key=lambda env: (order.index(env) if env in order else len(order), env))
    runs = {env: sorted(runs[env], key=lambda run: run.seed) for env in envs}
    rows = {}
    for env, of_env in runs.items():
        algo, steps = of_env[0].choices["algo"], of_env[0].total_steps
        known = level(name, algo, env, total_steps=steps, results=results)
        rows[env] = summarize(of_env, known)
    report.parent.mkdir(parents=True, exist_ok=True)
    whole = [run for of_env in runs.values() for run in of_env]
    archive = archive_text(whole, benchmark=name, environments=rows)
    report.with_suffix(".json").write_text(archive)
    table = make_table(rows, runs)
    report.with_suffix(".md").write_text(table + "\n")
    if rows:
        draw(rows, runs, report.with_suffix(".png"))
    return table


def by_env(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """Sort runs by their choice of the group ``env``."""
    found: dict[str, list[StoredRun]] = {}
    for run in runs:
        found.setdefault(run.choices["env"], []).append(run)
    return found


def summarize(runs: list[StoredRun], known: Level | None) -> dict[str, Any]:
    """Return an environment's figures.

    Args:
        runs: in the order of their seeds.
        known: what others reach there, and what is to be reached.
    """
    returns = np.array([run.final_return for run in runs])  # [S]
    _, curves = common_curve(runs)
    mean, interval = float(returns.mean()), bootstrap(returns, mean_over_seeds)
    target, best = (None, None) if known is None else (known.target, known.best)
    settings = [
        {key: value for key, value in run.settings.items() if key not in ("seed", "run_dir")}
        for run in runs
    ]
    return {
        "algo": runs[0].choices["algo"],
        "env_id": runs[0].env_id,
        "total_steps": runs[0].total_steps,
        "seeds": [run.seed for run in runs],
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
        "same_settings": all(others == settings[0] for others in settings),
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


def common_curve(runs: list[StoredRun]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps [P] at which the first run was evaluated, and all returns there, [S, P].

    Runs of whole episodes are evaluated at steps of their own: between them the curve of a run is
    a straight line, and behind them, by less than one iteration, it is flat.
    """
    curves = [run.evaluations for run in runs]
    steps = curves[0].steps
    return steps, np.array([np.interp(steps, curve.steps, curve.returns) for curve in curves])


def make_table(rows: dict[str, dict[str, Any]], runs: Mapping[str, list[StoredRun]]) -> str:
    """Return the Markdown table of the environments' figures (`summarize`) and runs."""
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
            ", ".join(sorted({name for run in runs[env] if (name := commit(run))})),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: dict[str, dict[str, Any]], runs: Mapping[str, list[StoredRun]], path: Path) -> None:
    """Draw mean ± standard deviation of the evaluation returns of every environment as a PNG."""
    columns = min(4, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels[len(rows) :]:
        axes.remove()
    for axes, (env, row) in zip(panels, rows.items(), strict=False):
        steps, curves = common_curve(runs[env])
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
