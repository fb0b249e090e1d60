"""What a study comes to: its best values as a file, and pictures of what it found."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from rlrun.analysis.statistics import MIN_SEEDS, bootstrap_interval, mean
from rlrun.errors import warn
from rlrun.loggers.progress import number
from rlrun.runs.files.disk import replacing
from rlrun.sweeps.plan import Job
from rlrun.sweeps.pool import stand

# Which YAML writes behind a value that stands alone.
END = "...\n"

# Complete trials below which a picture of what matters would show chance.
FEWEST_TRIALS = 5


def write_best(
    path: Path,
    headline: str,
    values: Mapping[str, Any],
    ranges: Mapping[str, str],
    seeds: Sequence[int],
) -> Path:
    """Write values as a file of the group ``tuned``.

    Args:
        path: of the file.
        headline: what they are the best of, in a line.
        values: by setting.
        ranges: of those that were searched.
        seeds: those that they were chosen on.

    Returns:
        The file.
    """
    notes = dict.fromkeys(values, "As the trials had it.")
    notes |= {key: f"Searched in {text}." for key, text in ranges.items()}
    lines = [
        "# @package _global_",
        f"# {headline}",
        "",
        "# Seeds that these values were chosen on: a table has others.",
        f"tuned_on: {list(seeds)}",
        "",
        *written(nested(values), notes),
    ]
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a config has them: {"algo.clip": 0.1} -> {"algo": {"clip": 0.1}}."""
    config: dict[str, Any] = {}
    for setting, value in values.items():
        *groups, key = setting.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        node[key] = value
    return config


def written(
    config: Mapping[str, Any], notes: Mapping[str, str], *, path: str = ""
) -> Iterator[str]:
    """Yield the lines of a YAML file, with a note above each value."""
    indent = "  " * path.count(".")
    for key, value in config.items():
        if isinstance(value, Mapping) and f"{path}{key}" not in notes:
            yield f"{indent}{key}:"
            yield from written(value, notes, path=f"{path}{key}.")
        else:
            yield f"{indent}# {notes[path + key]}"
            text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
            yield f"{indent}{key}: {text.removesuffix(END).strip()}"


def verdict(before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    """Say in a line whether values are better than others.

    Args:
        before: figures of the runs with the usual values, [S].
        after: of those with the values that were found, [S].
    """
    text = f"The best values gain {signed(float(after.mean() - before.mean()))}"
    if min(len(before), len(after)) < MIN_SEEDS:
        return f"{text} on {len(after)} fresh seeds: no interval under {MIN_SEEDS}"
    ends = bootstrap_interval(lambda x, y: mean(x) - mean(y), [after], [before])
    low, high = map(float, ends)
    text += f" on {len(after)} fresh seeds, 95 % interval [{signed(low)}, {signed(high)}]"
    if low > 0:
        return f"{text}: they are better"
    return f"{text}: {'they are worse' if high < 0 else 'not shown to be better'}"


def signed(value: float) -> str:
    """Write a number with its sign."""
    return number(value) if value < 0 else f"+{number(value)}"


def finals(jobs: Sequence[Job]) -> NDArray[np.float64]:
    """Return the figure of each run that has one, [S]."""
    figures = (standing.final_return for job in jobs if (standing := stand(job)) is not None)
    return np.array([figure for figure in figures if figure is not None])


def draw(study: optuna.Study, directory: Path) -> list[Path]:
    """Draw which settings matter, and which values go together; a picture never stops a study.

    Returns:
        The files.
    """
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < FEWEST_TRIALS:
        warn(f"no pictures of what matters: they need {FEWEST_TRIALS} complete trials")
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = []
    for name, picture in (("importance", draw_importance), ("parallel", draw_parallel)):
        path = directory / f"{name}.png"
        try:
            figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
            picture(study, figure)
            with replacing(path) as file:
                FigureCanvasAgg(figure).print_png(file)
            drawn.append(path)
        except Exception as error:
            warn(f"{path.name} was not drawn: {type(error).__name__}: {error}")
    return drawn


def draw_importance(study: optuna.Study, figure: Any) -> None:
    """Draw how much of the differences in value each setting explains (PED-ANOVA)."""
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color="#08519c")
    axes.set_xlabel("share of what tells good trials from others")
    axes.spines[["top", "right"]].set_visible(False)


def draw_parallel(study: optuna.Study, figure: Any) -> None:
    """Draw each complete trial as a line through its values, dark where it reached much."""
    trials = sorted(
        study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)),
        key=lambda trial: trial.values[0],
    )
    names = list(trials[0].params)
    axes = figure.subplots()
    for rank, trial in enumerate(trials):
        share = (rank + 1) / len(trials)
        heights = [height(trial, name) for name in names]
        axes.plot(heights, color=str(0.9 - 0.9 * share), linewidth=0.6 + 1.8 * share, zorder=rank)
    for place, name in enumerate(names):
        for edge, value in enumerate(ends(trials[0].distributions[name])):
            level = "bottom" if edge else "top"
            axes.annotate(
                value, (place, edge), (0, 4 if edge else -4), textcoords="offset points",
                ha="center", va=level, fontsize=8, color="0.4",
            )  # fmt: skip
    labels = [name.rpartition(".")[2] for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.set_title(f"{len(trials)} trials; the darker, the higher the return", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)


def ends(distribution: Any) -> tuple[str, str]:
    """Return the lowest and the highest value of a range, or the first and the last choice."""
    if isinstance(distribution, CategoricalDistribution):
        return str(distribution.choices[0]), str(distribution.choices[-1])
    return f"{distribution.low:g}", f"{distribution.high:g}"


def height(trial: optuna.trial.FrozenTrial, name: str) -> float:
    """Return where a trial's value lies in its range, in [0, 1]."""
    distribution: Any = trial.distributions[name]
    value = trial.params[name]
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    low, high = distribution.low, distribution.high
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / max(high - low, 1e-12)
