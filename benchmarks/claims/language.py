"""What the studies of language share: files of examples, runs that others begin as, curves."""

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import COLORS, HERE, Study, over_seeds, tidy, train
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from returns_report import bootstrap

from rlrun.analysis.statistics import interquartile_mean
from rlrun.loggers.jsonl import read_metrics

# Points of a curve over the tokens of a run.
POINTS = 40

# Evaluations of this many prompts each have a standard error of two points in a hundred.
EVALUATED = ("evaluation.episodes=512",)


def write_examples(path: Path, examples: Sequence[tuple[str, str]]) -> Path:
    """Write prompts and answers as ``env=prompts`` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in examples]
    path.write_text("\n".join(lines) + "\n")
    return path.resolve()


def sums(count: int, seed: int, answer: Callable[[int, int], str]) -> list[tuple[str, str]]:
    """Return different prompts ``12+7=`` with what is to be written behind them.

    Args:
        count: of them.
        seed: which ones.
        answer: of the two numbers, each below a hundred.
    """
    drawn = random.Random(seed).sample(range(10_000), count)
    return [(f"{n // 100}+{n % 100}=", answer(n // 100, n % 100)) for n in drawn]


def ones_first(one: int, other: int) -> str:
    """Return a sum as ``env=add`` wants it: 12+7= → 91."""
    return str(one + other)[::-1]


def let_runs_find_plugins() -> None:
    """Let the runs that are started from here import the modules beside this one."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])


def starts(study: Study, words: Sequence[str], seeds: Sequence[int]) -> dict[int, Path]:
    """Train the runs that others begin as, one for each seed."""
    runs = {f"start_s{seed}": [*words, *EVALUATED, f"seed={seed}"] for seed in seeds}
    directories = train(study, runs)
    return {seed: directories[f"start_s{seed}"].resolve() for seed in seeds}


def train_methods(
    study: Study,
    methods: Mapping[str, Callable[[Path], Sequence[str]]],
    begin: Mapping[int, Path],
    common: Sequence[str],
) -> dict[str, list[Path]]:
    """Train each method from each start, and return the directories in the order of the seeds.

    Args:
        study: where they belong.
        methods: words of each, given the run that it begins as.
        begin: those runs, by seed.
        common: words of all.
    """
    runs = {
        f"{number}_s{seed}": [*common, *words(start), f"model.init={start}", f"seed={seed}"]
        for seed, start in begin.items()
        for number, words in enumerate(methods.values())
    }
    directories = train(study, runs)
    return {
        method: [directories[f"{number}_s{seed}"] for seed in begin]
        for number, method in enumerate(methods)
    }


def measured(directory: Path, name: str) -> tuple[list[float], list[float]]:
    """Return a number of a run's rows, and at which steps they are."""
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if name in row]
    return [row["step"] for row in rows], [row[name] for row in rows]


def curve(directories: Sequence[Path], name: str) -> dict[str, Any]:
    """Return a number over the tokens of several seeds: the interquartile mean and its interval.

    Args:
        directories: of the seeds' runs.
        name: "eval/pass@1", say.
    """
    found = [measured(directory, name) for directory in directories]
    grid = np.linspace(0, min(steps[-1] for steps, _ in found), POINTS)
    values = np.array([np.interp(grid, steps, numbers) for steps, numbers in found])
    intervals = [bootstrap(column, interquartile_mean) for column in values.T]
    return {
        "steps": grid.round().tolist(),
        "iqm": [float(interquartile_mean([column])) for column in values.T],
        "intervals": intervals,
        "last": over_seeds(values[:, -1].tolist()),
    }


def draw_curve(axes: Axes, figures: Mapping[str, Any], *, color: str, label: str) -> None:
    """Draw a curve over thousands of tokens, and a band for its interval."""
    thousands = [step / 1_000 for step in figures["steps"]]
    axes.plot(thousands, figures["iqm"], color=color, lw=1.4, label=label)
    if all(interval is not None for interval in figures["intervals"]):
        low, high = zip(*figures["intervals"], strict=True)
        axes.fill_between(thousands, low, high, color=color, alpha=0.15, lw=0)


def draw_methods(
    result: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], *, title: str, y: str
) -> Figure:
    """Draw the curves of methods, a panel for each number, and name the methods below.

    Args:
        result: by method and number, what `curve` returned.
        titles: of the panels, by number.
        title: of the whole.
        y: what the numbers are of, as "share".
    """
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    for axes, (name, panel) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        for color, (method, figures) in zip(COLORS, result.items(), strict=False):
            draw_curve(axes, figures[name], color=color, label=method)
        tidy(axes, title=panel, x="tokens written, thousands", y=y)
        axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
