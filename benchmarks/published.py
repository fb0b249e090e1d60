"""What others report and what rlrun should reach, from ``published.yaml``."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from rlrun.analysis.reports.tables import show
from rlrun.analysis.selection import cut
from rlrun.analysis.sources import read_archive

HERE = Path(__file__).parent
RESULTS = HERE / "results"
USUAL_STEPS = 1_000_000  # of a published figure that says nothing else


@dataclass(frozen=True)
class Level:
    """What others reach, and what rlrun should.

    Attributes:
        target: mean return over seeds; None: there is nothing to reach.
        published: figures with their sources.
        best: the highest of them that took no more steps than rlrun's runs; None: there is none.
    """

    target: float | None
    published: str
    best: float | None


@cache
def published() -> dict:
    """Return the content of ``published.yaml``."""
    return yaml.safe_load((HERE / "published.yaml").read_text())


def budgets() -> dict[str, int]:
    """Return the environment steps of a run, by environment, in the order of work."""
    return published()["steps"]


def budget(name: str, algo: str, env: str) -> int:
    """Return the environment steps of a run of a method.

    Args:
        name: of the benchmark.
        algo: its algorithm, whose rows are taken if there are none of that name.
        env: choice of rlrun's group ``env``.
    """
    row = rows_of(name, algo).get(env, {})
    return row["steps"] if "steps" in row else budgets()[env]


def rows_of(name: str, algo: str) -> dict:
    """Return what is known of a method by environment; of its algorithm, if nothing of the name."""
    known = published()["methods"]
    return known.get(name) or known.get(algo) or {}


def environments(name: str, algo: str) -> list[str]:
    """Return the environments for which something is known of a method, in the order of work.

    Args:
        name: of the benchmark.
        algo: its algorithm, whose figures are taken if there are none of that name.
    """
    rows = rows_of(name, algo) or budgets()
    return sorted(rows, key=list(budgets()).index)


def level(name: str, algo: str, env: str, *, total_steps: int, results: Path) -> Level | None:
    """Return what is known of a method on an environment; None if nothing is.

    Args:
        name: of the benchmark.
        algo: its algorithm, whose figures are taken if there are none of that name.
        env: choice of rlrun's group ``env``.
        total_steps: environment steps of a run, for a comparison at equal steps.
        results: directory with the ``returns_<method>.json`` to compare with.
    """
    row = rows_of(name, algo).get(env)
    if row is None:
        return None
    target = row.get("target")
    if "against" not in row:
        figures = row["published"]
        best = [height(f) for f in figures if f.get("steps", USUAL_STEPS) <= total_steps]
        return Level(target, "; ".join(map(write_figure, figures)), max(best, default=None))
    returns = returns_after(results / f"returns_{row['against']}.json", env, total_steps)
    if len(returns) == 0:
        return Level(target, "", None)
    mean, std = float(returns.mean()), returns.std(ddof=min(1, len(returns) - 1))
    if "within" in row:
        target = mean - row["within"] * abs(mean)
    method = f"rlrun's {row['against'].upper()}"
    return Level(target, f"{method} {show(mean)} ± {show(std)} (n = {len(returns)})", mean)


def best_mean(env: str) -> float:
    """Return the best mean over seeds that is published for an environment, of any method."""
    rows = [rows[env] for rows in published()["methods"].values() if env in rows]
    figures = [figure for row in rows for figure in row.get("published", [])]
    return float(max(figure["mean"] for figure in figures if "mean" in figure))


def height(figure: dict) -> float:
    """Return a published figure's mean, or its peak where there is no mean."""
    return float(figure["mean"] if "mean" in figure else figure["peak"])


def write_figure(figure: dict) -> str:
    """Write a published figure with its source, and with what it is if not a mean at 1 M steps."""
    text = f"{figure['by']} {height(figure):g}"
    if "std" in figure:
        text += f" ± {figure['std']:g}"
    remarks = [] if "mean" in figure else ["peak"]
    if "steps" in figure:
        remarks.append(f"{figure['steps'] / 1e6:g} M")
    if "note" in figure:
        remarks.append(figure["note"])
    return f"{text} ({', '.join(remarks)})" if remarks else text


def returns_after(path: Path, env: str, steps: int) -> np.ndarray:
    """Return the runs' mean evaluations in the last tenth before a number of steps, [S].

    Args:
        path: JSON of a returns benchmark; one that is not there has no runs.
        env: choice of rlrun's group ``env``.
        steps: environment steps; runs that are longer count as if they had been stopped there.
    """
    if not path.exists():
        return np.array([])
    runs = [run for run in read_archive(path) if run.choices["env"] == env]
    long = [cut(run, steps) for run in runs if run.evaluations.steps[-1] >= steps]
    figures = np.array([run.final_return for run in long])
    return figures[np.isfinite(figures)]
