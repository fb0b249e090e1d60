"""What a study comes to: its best values as a file, and pictures of what it found."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution

from rlrun.errors import warn
from rlrun.runs.files.disk import replacing
from rlrun.sweeps.space import Values

# Below a study's directory, so that `--config-dir STUDY tuned=best` finds it.
BEST = Path("tuned", "best.yaml")

# Complete trials below which a picture of what matters would show chance.
FEWEST_TRIALS = 5


def write_best(
    directory: Path,
    headline: str,
    values: Values,
    space: Mapping[str, str],
    seeds: Sequence[int],
) -> Path:
    """Write the best values as a file of the group ``tuned``.

    Args:
        directory: the study's.
        headline: what they are the best of, in a line.
        values: by setting.
        space: the ranges that they were searched in.
        seeds: those that they were chosen on.

    Returns:
        The file.
    """
    lines = [
        "# @package _global_",
        f"# {headline}",
        "",
        "# Seeds that these values were chosen on: a table has others.",
        f"tuned_on: {list(seeds)}",
        "",
        *written(nested(values), space),
    ]
    path = directory / BEST
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


def nested(values: Values) -> dict[str, Any]:
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
    config: Mapping[str, Any], space: Mapping[str, str], *, path: str = ""
) -> Iterator[str]:
    """Yield the lines of a YAML file, with each value's range above it."""
    indent = "  " * path.count(".")
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from written(value, space, path=f"{path}{key}.")
        else:
            yield f"{indent}# Searched in {space[path + key]}."
            # What was typed as a word of a command line is YAML; numbers are JSON.
            yield f"{indent}{key}: {value if isinstance(value, str) else json.dumps(value)}"


def draw(study: optuna.Study, directory: Path) -> list[Path]:
    """Draw which settings matter, and which values go together; a picture never stops a study.

    Returns:
        The files.
    """
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < FEWEST_TRIALS:
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
        key=lambda trial: trial.value,
    )
    names = list(trials[0].params)
    axes = figure.subplots()
    for rank, trial in enumerate(trials):
        share = (rank + 1) / len(trials)
        heights = [height(trial, name) for name in names]
        axes.plot(heights, color=str(0.9 - 0.9 * share), linewidth=0.6 + 1.8 * share, zorder=rank)
    labels = [name.rpartition(".")[2] for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="right")
    axes.set_yticks([0, 1], ["lowest", "highest"])
    axes.set_title(f"{len(trials)} trials; the darker, the higher the return", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


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
