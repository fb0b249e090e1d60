"""A sweep's directory: it holds the runs that are to be, from before the first of them begins.

Each run has its directory there, with the config that it is to be trained with. What has become of
a sweep is what has become of its runs, so that it cannot be lost or contradict them; ``sweep.json``
says besides what the sweep was asked for, and in which order:
{"words": ["algo=ppo,trpo", …], "swept": ["algo", …], "jobs": {"ppo_hopper_s0": "seed=0", …}, …}.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlrun.analysis.grouping import BESIDE, distinguishing
from rlrun.analysis.stored_runs import flatten
from rlrun.config import schema
from rlrun.config.experiment import Experiment
from rlrun.config.files import read_json, read_yaml
from rlrun.errors import UserError
from rlrun.runs.counters import Counters
from rlrun.runs.files import directory as run_directory
from rlrun.runs.files.directory import FILES, is_sweep
from rlrun.runs.files.disk import replacing
from rlrun.runs.files.record import summary

# The plan.
PLAN = FILES["sweep"]

# Characters of a run's name: file systems allow 255 of a directory's.
LONGEST_NAME = 120

# Settings that are in a run's label or at the end of its name.
NAMED = ("algo", "env", "advantage", "collector", "model", "seed")


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        directory: of the run.
        point: what is its own among the sweep's words ("algo=ppo seed=1").
        plugins: the user's packages that it uses.
    """

    directory: Path
    point: str
    plugins: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.directory.name


def sweep_name(words: Sequence[str]) -> str:
    """Name a sweep after what it was asked for, whatever its seeds and the order of the words.

    The same words lead to the same sweep again, and more seeds are more runs of it.

    Args:
        words: the command line's overrides ("algo=ppo,trpo", "seed=0,1").
    """
    asked = sorted(in_order(word) for word in words if decides(word) and key_of(word) != "seed")
    choices = [value for key, _, value in (word.partition("=") for word in asked) if key in NAMED]
    readable = re.sub(r"[^\w.,-]+", "-", "_".join(choices)).replace(",", "-")[:LONGEST_NAME]
    code = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:8]
    return f"{readable or 'sweep'}_{code}"


def decides(word: str) -> bool:
    """Tell whether a word of a command line decides what is computed."""
    return re.split(r"[./@]", key_of(word))[0] not in (*BESIDE, "hydra")


def key_of(word: str) -> str:
    """Return the setting or group that a word of a command line is about."""
    return word.lstrip("+~").partition("=")[0]


def in_order(word: str) -> str:
    """Return a word with its values in alphabetical order, as far as they are simple ones."""
    key, equals, values = word.partition("=")
    simple = re.fullmatch(r"[\w.,+-]*", values)
    return f"{key}{equals}{','.join(sorted(values.split(',')))}" if simple else word


def run_name(experiment: Experiment, own: Sequence[str]) -> str:
    """Name a job's run: its label, what is its own besides, and its seed.

    Args:
        experiment: the job's.
        own: its words among the sweep's ("algo.gamma=0.9", "seed=1").

    Returns:
        "ppo_hopper_gamma=0.9_s1".
    """
    settings = [
        f"{key.rpartition('.')[2]}={value}"
        for key, _, value in (word.lstrip("+").partition("=") for word in own)
        if key not in NAMED
    ]
    words = (re.sub(r"[^\w.=,+-]+", "-", word) for word in (experiment.label, *settings))
    return f"{'_'.join(words)[:LONGEST_NAME]}_s{experiment.seed}"


def add_run(
    sweep: Path, experiment: Experiment, own: Sequence[str], *, name: str | None = None
) -> Job:
    """Make a job's run in the sweep's directory, or find the one that is there.

    Args:
        sweep: the sweep's directory.
        experiment: the job's.
        own: its words among the sweep's.
        name: what the sweep is called; None: as its directory.

    Raises:
        UserError: its directory cannot be made, or ``run_dir`` names one that another run has.
    """
    experiment = replace(experiment, sweep=name or sweep.name)
    directory, point = run_name(experiment, own), " ".join(own)
    places = [Path(experiment.run_dir)] if experiment.run_dir else [sweep / directory]
    if not experiment.run_dir:
        places.append(sweep / f"{directory}_{config_code(experiment.config)}")
    for place in places:
        if not (place / "run.json").exists():
            _make_run(place, experiment)
        if _is_same(read_yaml(place / "config.yaml"), experiment.config):
            return Job(place, point, tuple(experiment.plugins))
    raise UserError(f"{places[-1]} holds a run with another config: choose another directory")


def _make_run(place: Path, experiment: Experiment) -> None:
    """Make the directory of a run that is to be; somebody else may have done so meanwhile."""
    facts = run_directory.provenance()
    try:
        with run_directory.new_directory(
            place.parent,
            str(place),
            experiment.name,
            config={**experiment.config, "run_dir": str(place)},
            overrides=experiment.overrides,
            record=summary(experiment, Counters(), facts, "planned"),
        ):
            pass
    except UserError as error:
        if (place / "run.json").exists():
            return
        if (place / "config.yaml").exists():
            raise UserError(
                f"{place} has lost its run.json, so that no run goes on there: move it away"
            ) from error
        raise


def _is_same(config: Any, other: Mapping[str, Any]) -> bool:
    """Say whether two configs make the same run, wherever and how fast.

    A setting that one of them has not was added by another version of rlrun.
    """
    if not isinstance(config, dict):
        return False
    return not distinguishing([flatten(config), flatten(other)], lambda key: decides(key))


def config_code(config: Mapping[str, Any]) -> str:
    """Return a short name for what a run with this config computes."""
    decides = {key: value for key, value in config.items() if key not in BESIDE}
    text = json.dumps(decides, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_plan(
    sweep: Path, words: Sequence[str], swept: Sequence[str], jobs: Sequence[Job]
) -> None:
    """Write what a sweep was asked for; the jobs that it has already stay.

    Args:
        sweep: its directory.
        words: the command line's overrides.
        swept: the settings and groups that they have several values of.
        jobs: those that are known, in their order.

    Raises:
        UserError: the directory cannot be written to, or holds a plan that cannot be read.
    """
    try:
        with run_directory.shared(sweep):
            earlier = read_plan(sweep) if is_sweep(sweep) else []
            points = {_place(sweep, job.directory): job.point for job in (*earlier, *jobs)}
            content = {"words": list(words), "swept": list(swept), "jobs": points}
            content |= run_directory.provenance()
            with replacing(sweep / PLAN) as file:
                file.write((json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise UserError(f"{sweep} cannot be written to: {error}") from error


def own_words(sweep: Path, words: Sequence[str]) -> list[str]:
    """Return those of a job's words that differ from job to job.

    Args:
        sweep: the sweep's directory.
        words: all overrides of the job.

    Raises:
        UserError: it is no sweep that can be read.
    """
    swept = _read(sweep, "swept", list[str])
    return [word for word in words if word.partition("=")[0] in swept]


def _place(sweep: Path, directory: Path) -> str:
    """Name a run's directory: in the sweep's by its name, else by its path."""
    return directory.name if directory.parent == sweep else str(directory)


def read_plan(sweep: Path, plugins: Sequence[str] = ()) -> list[Job]:
    """Return the runs that are in a sweep's directory: those of its plan in its order, and others.

    Runs that the plan names elsewhere are left out: who made the sweep may not be who reads it.

    Args:
        sweep: the sweep's directory.
        plugins: the user's packages that its runs may use.

    Raises:
        UserError: it is no sweep that can be read.
    """
    points = _read(sweep, "jobs", dict[str, str])
    there = sorted(path.parent.name for path in sweep.glob("*/run.json"))
    planned = [name for name in points if name in there]
    names = dict.fromkeys([*planned, *there])
    return [Job(sweep / name, points.get(name, ""), tuple(plugins)) for name in names]


def absent(sweep: Path) -> list[str]:
    """Return the names of runs that a sweep's plan has in its directory, and that are not there.

    Raises:
        UserError: it is no sweep that can be read.
    """
    points = _read(sweep, "jobs", dict[str, str])
    own = [name for name in points if Path(name).name == name]
    return [name for name in own if not (sweep / name / "run.json").is_file()]


def _read(sweep: Path, key: str, kind: Any) -> Any:
    """Return what a sweep's plan says of something."""
    try:
        return schema.convert(read_json(sweep / PLAN).get(key), kind, key)
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{sweep} is no sweep that can be read: {PLAN}: {error}") from error
