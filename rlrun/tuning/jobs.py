"""The runs of some values: one for each seed, in a directory, beside those of other values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.experiment import Experiment
from rlrun.runs.setup.preflight import Preflight
from rlrun.sweeps import plan, room
from rlrun.sweeps.run import run_sweep
from rlrun.tuning import space


@dataclass(frozen=True, kw_only=True)
class RunMaker:
    """Makes the runs of some values, one for each seed.

    Attributes:
        put_together: makes a run of words.
        words: what all of the runs have.
        seeds: of the runs.
        at_once: runs at the same time, which share the cores.
        study: what the study is called.
    """

    put_together: Callable[[Sequence[str]], Experiment]
    words: Sequence[str]
    seeds: Sequence[int]
    at_once: int
    study: str

    def compose(self, values: Mapping[str, Any]) -> list[Experiment]:
        """Put the runs of some values together.

        Args:
            values: by setting.

        Raises:
            UserError: the values make no run.
        """
        experiments, preflight = [], Preflight()
        for seed in self.seeds:
            words = [*self.words, *space.as_words(values), f"seed={seed}"]
            experiment = self.put_together(words)
            preflight.check(experiment)
            experiments.append(room.with_share(experiment, self.at_once))
        return experiments

    def make(self, place: Path, experiments: Sequence[Experiment]) -> list[plan.Job]:
        """Make the directories of runs, or find those that are there.

        Args:
            place: directory that they are in.
            experiments: of the runs.

        Raises:
            UserError: a directory cannot be made.
        """
        jobs = []
        for experiment in experiments:
            own = [f"group={experiment.group}"] if experiment.group else []
            own.append(f"seed={experiment.seed}")
            jobs.append(plan.add_run(place, experiment, own, name=f"{self.study}/{place.name}"))
        return jobs


def train_in_turn(
    place: Path,
    words: Sequence[str],
    groups: Sequence[Sequence[plan.Job]],
    slots: Sequence[str | None],
) -> None:
    """Train the runs of several groups, seed by seed, so that early results compare all of them.

    Args:
        place: directory that they are in, a sweep's.
        words: what was asked for.
        groups: the runs of each, in the order of their seeds.
        slots: for runs at the same time (`room.slots`).

    Raises:
        Interrupted, JobFailed: see :func:`rlrun.sweeps.run.run_sweep`.
    """
    jobs = [job for of_a_seed in zip(*groups, strict=True) for job in of_a_seed]
    plan.write_plan(place, words, ["group", "seed"], jobs)
    run_sweep(place, jobs, slots, by=["group"])
