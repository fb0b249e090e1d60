"""Training the runs of a sweep's directory, from the first look at them to the closing lines."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rlrun.analysis.cautions import listed
from rlrun.analysis.results import examine, show
from rlrun.analysis.stored_runs import read_run
from rlrun.config.load import load_run
from rlrun.errors import Interrupted, JobFailed, UserError, say, warn
from rlrun.loggers.progress import LastingOutput, StandardError
from rlrun.runs.setup.preflight import Preflight
from rlrun.runs.signals import StopFlag
from rlrun.sweeps.display import SweepDisplay
from rlrun.sweeps.plan import Job, absent, read_plan
from rlrun.sweeps.pool import LOG, Ending, Pool, stand
from rlrun.sweeps.room import slots


def run_sweep(
    sweep: Path, jobs: Sequence[Job], places: Sequence[str | None], by: Sequence[str] = ()
) -> None:
    """Train what is not finished of a sweep, and say what there is then and what to do with it.

    Args:
        sweep: its directory.
        jobs: its runs, in the order in which they are begun.
        places: for runs at the same time (`room.slots`).
        by: choices and settings that make a method in the comparison, in place of what is found.

    Raises:
        Interrupted: a signal asked it to stop, and its runs did, after a checkpoint each.
        JobFailed: not every run finished.
    """
    display = SweepDisplay(jobs, StandardError())
    pool = Pool(jobs, places, display)
    with StopFlag() as stop:
        try:
            pool.run(stop)
        finally:
            pool.close()
            display.close()
    finished = [job for job in jobs if job in pool.ended and pool.ended[job].status == "finished"]
    if len(finished) > 1:
        compare(sweep, finished, by)
    say("\n".join(closing_lines(sweep, jobs, pool.ended, by)), sys.stdout)
    if stop.signal is not None:
        raise Interrupted(stop.signal)
    if any(ending.status == "failed" for ending in pool.ended.values()):
        raise JobFailed(f"not every run of {sweep} finished")


def compare(sweep: Path, finished: Sequence[Job], by: Sequence[str]) -> None:
    """Print what `rlrun compare` says of the runs that have finished."""
    try:
        runs = [read_run(job.directory) for job in finished]
        show(examine(runs, command=command(sweep, by), by=by), LastingOutput())
    except UserError as error:
        say(f"not compared: {error}", sys.stdout)


def command(sweep: Path, by: Sequence[str]) -> str:
    """Return the command that compares a sweep's runs."""
    return " ".join(["rlrun compare", str(sweep), *(["--by", ",".join(by)] if by else [])])


def resume_sweep(sweep: Path, plugins: Sequence[str]) -> None:
    """Train what is not finished of a sweep, whose directory may be somebody else's.

    Args:
        sweep: its directory.
        plugins: the user's packages that its runs may use.

    Raises:
        UserError: it has no run that can be read.
        Interrupted, JobFailed: see `run_sweep`.
    """
    jobs = read_plan(sweep, plugins)
    if not jobs:
        raise UserError(f"{sweep} has no run of its plan in it")
    gone = absent(sweep)
    if gone:
        have = "has" if len(gone) == 1 else "have"
        warn(
            f"{sweep}: {listed(gone)} of its plan {have} no run.json; without their directories, "
            "`rlrun -m` with the words of the sweep makes them anew"
        )
    preflight, experiments = Preflight(), []
    for job in jobs:
        standing = stand(job)
        if standing is None or standing.status != "finished":
            experiment = load_run(job.directory, plugins)
            preflight.check(experiment)
            experiments.append(experiment)
    run_sweep(sweep, jobs, slots(experiments) if experiments else [])


def closing_lines(
    sweep: Path, jobs: Sequence[Job], ended: dict[Job, Ending], by: Sequence[str]
) -> list[str]:
    """Say what became of a sweep.

    Args:
        sweep: its directory.
        jobs: its runs.
        ended: what became of them; those that are not in it have not been begun.
        by: what makes a method in their comparison.
    """
    finished = [job for job in jobs if job in ended and ended[job].status == "finished"]
    before = sum(ended[job].earlier for job in finished)
    failed = {job: ended[job] for job in jobs if job in ended and ended[job].status == "failed"}
    lines = [f"{len(finished)} of {len(jobs)} runs finished in {sweep}"]
    if before:
        lines[0] += f", {before} of them earlier"
    lines += [
        f"  {job.name} failed: {ending.reason} (see {job.directory / LOG})"
        for job, ending in failed.items()
    ]
    lines.append("Next:")
    if len(finished) < len(jobs):
        plugins = dict.fromkeys(name for job in jobs for name in job.plugins)
        allowed = "".join(f" --plugin {name}" for name in plugins)
        lines.append(f"  rlrun resume {sweep}{allowed}")
    if before == len(jobs):
        lines.append("  the same words with hydra.sweep.dir=… train them anew")
    if len(finished) > 1:
        lines.append(f"  {command(sweep, by)} --output report")
    lines.append(f"  rlrun list {sweep}")
    return lines
