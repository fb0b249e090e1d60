"""What others report and what rlrun should reach, from ``published.yaml``."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FINAL_SHARE = 0.1  # of a run's steps, whose evaluations are the run's figure


@dataclass(frozen=True)
class Level:
    """What others reach, and what rlrun should.

    Attributes:
        target: mean return over seeds; None: there is nothing to reach.
        published: figures with their sources.
    """

    target: float | None
    published: str


@cache
def published() -> dict:
    """Return the content of ``published.yaml``."""
    return yaml.safe_load((HERE / "published.yaml").read_text())


def budgets() -> dict[str, int]:
    """Return the environment steps of a run, by environment, in the order of work."""
    return published()["steps"]


def environments(name: str, algo: str) -> list[str]:
    """Return the environments for which something is known of a method, in the order of work.

    Args:
        name: of the benchmark.
        algo: its algorithm, whose figures are taken if there are none of that name.
    """
    known = published()["methods"]
    rows = known.get(name) or known.get(algo) or budgets()
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
    known = published()["methods"]
    row = (known.get(name) or known.get(algo) or {}).get(env)
    if row is None:
        return None
    target = row.get("target")
    if "against" not in row:
        return Level(target, row["published"])
    returns = returns_after(results / f"returns_{row['against']}.json", env, total_steps)
    if len(returns) == 0:
        return Level(target, "")
    mean, std = returns.mean(), returns.std(ddof=min(1, len(returns) - 1))
    if "within" in row:
        target = float(mean - row["within"] * abs(mean))
    method = f"rlrun's {row['against'].upper()}"
    return Level(target, f"{method} {show(mean)} ± {show(std)} (n = {len(returns)})")


def returns_after(path: Path, env: str, steps: int) -> np.ndarray:
    """Return the runs' mean evaluations in the last tenth before a number of steps, [S].

    Args:
        path: JSON of a returns benchmark; one that is not there has no runs.
        env: choice of rlrun's group ``env``.
        steps: environment steps; runs that are longer count as if they had been stopped there.
    """
    if not path.exists():
        return np.array([])
    row = json.loads(path.read_text())["environments"].get(env)
    if row is None or row["total_steps"] < steps:
        return np.array([])
    # Evaluations come at the end of an iteration, a little after the step at which they are due.
    last = 1.05 * steps
    figures = [
        [value for step, value in run["evaluations"] if (1 - FINAL_SHARE) * steps <= step <= last]
        for run in row["runs"]
    ]
    return np.array([np.mean(values) for values in figures if values])


def show(value: float) -> str:
    """Write a return with the digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
