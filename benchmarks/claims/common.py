"""What the studies share: runs, figures over seeds, pictures."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from rlrun.advantages.columns import Estimator
from rlrun.analysis.statistics import interquartile_mean
from rlrun.analysis.stored_runs import read_run
from rlrun.cli.hydra_bridge import compose
from rlrun.config import targets
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.config.load import ESTIMATOR_ARGUMENTS, ESTIMATORS, load_run, to_plain
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.disk import CHECKPOINTS
from rlrun.runs.setup.assembly import Assembly

# The benchmarks are scripts: they find each other in their own directory.
sys.path.insert(0, str(Path(__file__).parents[1]))

from jobs import make_job, run_all
from returns_report import bootstrap

HERE = Path(__file__).parent
BLUE, LIGHT_BLUE, ORANGE, GREEN, PURPLE = "#08519c", "#6baed6", "#d95f0e", "#238b45", "#6a51a3"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, "#a50f15", LIGHT_BLUE, "#636363")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Study(NamedTuple):
    """One study as it is run now.

    Attributes:
        name: of its files.
        quick: with tiny settings, to see that it works; the results go elsewhere.
        parallel: processes side by side.
    """

    name: str
    quick: bool
    parallel: int

    @property
    def directory(self) -> Path:
        """Of the runs, from the repository's root."""
        return Path("outputs", "claims", f"{self.name}_quick" if self.quick else self.name)

    def write(self, result: dict[str, Any], figure: Figure) -> None:
        """Write ``<name>.json`` and ``<name>.png``."""
        output = self.directory if self.quick else HERE
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{self.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        FigureCanvasAgg(figure).print_png(output / f"{self.name}.png")
        print(f"wrote {output / self.name}.json and .png")


def parse(file: str, description: str | None) -> Study:
    """Read a study's command line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    arguments = parser.parse_args()
    return Study(Path(file).stem, arguments.quick, arguments.jobs)


def train(study: Study, runs: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Train runs, or go on with them, and return their directories.

    Args:
        study: where they belong.
        runs: settings as typed on rlrun's command line, by name of a run.
    """
    jobs = [make_job(study.directory / name, settings) for name, settings in runs.items()]
    failures = run_all(jobs, parallel=study.parallel)
    if failures:
        sys.exit("\n".join(failures))
    return {job.name: job.directory for job in jobs}


def final_return(directory: Path) -> float:
    """Return the mean evaluation in the last tenth of a finished run."""
    return read_run(directory).final_return


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return the interquartile mean over seeds with its bootstrap interval (from 3 on)."""
    array = np.array(values)
    return {
        "values": array.tolist(),
        "iqm": float(interquartile_mean([array])),
        "interval": bootstrap(array, interquartile_mean),
    }


def side_by_side(
    study: Study, function: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Call a function on each item, in a process of its own; results are in order."""
    with ProcessPoolExecutor(
        study.parallel,
        mp_context=get_context("spawn"),  # torch's threads do not survive a fork
        max_tasks_per_child=1,  # the compiler keeps what it made for earlier ones
    ) as pool:
        return list(pool.map(function, items))


def make_run(words: Sequence[str]) -> Assembly:
    """Build the parts of a run from a command line's words, without a directory."""
    experiment = compose(words, Path("outputs"))
    experiment.hardware.prepare()
    return Assembly(experiment, checkpoint=None)


def load_trained(directory: Path, change: Callable[[Experiment], Experiment]) -> Assembly:
    """Build the parts of a trained run from its last checkpoint, uncompiled.

    Args:
        directory: the run's.
        change: what is to be different from now on.
    """
    experiment = change(load_run(directory))
    checkpoint = CheckpointStore(directory / CHECKPOINTS, keep=experiment.checkpoint.keep)
    loaded = checkpoint.load_last()
    experiment.hardware.prepare()
    return Assembly(experiment, replace(loaded, info={**loaded.info, "compiled": False}))


def make_estimator(name: str, **constants: Any) -> Estimator:
    """Build an estimator as the command line does: ``advantage=<name> advantage.lam=…``."""
    node = OmegaConf.load(conf_directory() / "advantage" / f"{name}.yaml")
    values = to_plain(cast(DictConfig, OmegaConf.merge(node, constants)))
    return targets.build(values, "advantage", ESTIMATORS, later=ESTIMATOR_ARGUMENTS)


def tidy(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Label a panel and take away what is not needed."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", lw=0.8)
    axes.set_axisbelow(True)


def plot_over_seeds(
    axes: Axes, x: Sequence[float], figures: Sequence[dict[str, Any]], *, color: str, label: str
) -> None:
    """Draw interquartile means with their intervals, and every seed as a dot."""
    for position, figure in zip(x, figures, strict=True):
        values = figure["values"]
        axes.plot([position] * len(values), values, "o", color=color, ms=3, alpha=0.35, lw=0)
        if figure["interval"] is not None:
            axes.plot([position] * 2, figure["interval"], color=color, lw=1.2)
    axes.plot(x, [figure["iqm"] for figure in figures], "-o", color=color, ms=4, label=label)
