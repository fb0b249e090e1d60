"""One process's stint of a run: from its directory to its end, whatever ends it."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlrun.config.experiment import Experiment
from rlrun.errors import (
    CheckpointNotWritten,
    Interrupted,
    NonFiniteError,
    UserError,
)
from rlrun.hardware.spec import settings_kept
from rlrun.runs.evaluate import which_limit
from rlrun.runs.files.checkpoint import Checkpoint
from rlrun.runs.files.record import Record
from rlrun.runs.run import Run
from rlrun.runs.setup.assembly import Assembly
from rlrun.runs.setup.restoring import must_belong
from rlrun.runs.signals import StopFlag


@contextmanager
def assemble(experiment: Experiment, checkpoint: Checkpoint | None) -> Iterator[Assembly]:
    """Set this process up for a run, build its parts, and let its environments go in the end.

    The process comes first: how many threads compute the initial weights can show in their bits.
    Afterwards it is as it was.

    Args:
        experiment: checked configuration with its parts.
        checkpoint: where to go on from, or None for a new run.

    Raises:
        UserError: the parts do not fit together, or the checkpoint does not fit them.
    """
    if checkpoint is not None and experiment.hardware.learner_threads is None:
        # Decided once, as what is compiled: sums of other parts differ in their last bits.
        with must_belong(checkpoint.path):
            threads = int(checkpoint.info["operation_threads"])
            hardware = replace(experiment.hardware, learner_threads=max(1, min(threads, 1024)))
            experiment = replace(experiment, hardware=hardware)
    with settings_kept():
        experiment.hardware.prepare()
        assembly = Assembly(experiment, checkpoint)
        del checkpoint  # as large as the run itself, which has taken what it needs
        with closing(assembly):
            yield assembly


def execute(assembly: Assembly, directory: Path, facts: dict[str, Any]) -> float:
    """Train to the end.

    Args:
        assembly: the parts of a new run, or of one that goes on from a checkpoint.
        directory: its directory, locked by this process.
        facts: what ``run.json`` says besides the run's state.

    Returns:
        The mean return of the last evaluation.

    Raises:
        UserError: a logger or the compiler cannot work as it was asked for, an environment
            breaks its time limit, or a file of a resumed run is damaged.
        Interrupted: a signal asked the run to stop, and it did, after a checkpoint.
        EnvironmentFailure: an environment raised; what is saved is the state before that, or, where
            the run has not kept it (with a replay buffer, on tables), the newest checkpoint.
        NonFiniteError: a number is lost; the last checkpoint is the one before that.
        CheckpointNotWritten: the disk is full, say; the earlier checkpoints are there.
        DirectoryLost: the directory was deleted while the run was in it.
    """
    try:
        record = Record(
            directory, assembly.experiment, assembly.counters, facts, assembly.logger_states
        )
    except (OSError, CheckpointNotWritten) as raised:
        raise UserError(f"{directory} cannot be written to: {raised}") from raised
    status, error = "failed", None
    with StopFlag() as stop:
        try:
            record.open_loggers()
            problem, evaluation = assembly.problem, assembly.experiment.evaluation
            limit = which_limit(problem.env_id, problem.time_limit, evaluation.max_length)
            for remark in (*assembly.experiment.env.remarks(), limit):
                if remark is not None:
                    record.progress.message(remark)
            run = Run(assembly, record, stop)  # its clock starts
            compile_update(run, record, stop)
            run.algorithm.loop(run)
            record.require_directory()
            if run.counters.step and not run.store.has(run.counters.step):
                # Whenever it was that a signal came.
                record.loggers.checkpoint(run.save(), ["last"])
            status = "finished" if run.finished else "interrupted"
        except NonFiniteError as raised:
            kept = run.store.steps()
            error = (
                f"{raised} after update {run.counters.update} (step {run.counters.step}); "
                f"the last good checkpoint is {kept[-1] if kept else 'none'}"
            )
            raise NonFiniteError(error) from raised
        except CheckpointNotWritten as raised:
            error = str(raised)
            record.require_directory()  # which says better what happened
            raise
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
            raise
        finally:
            record.close(status, error)
    if stop.signal is not None:
        raise Interrupted(stop.signal)
    return assembly.counters.last_return


def compile_update(run: Run, record: Record, stop: StopFlag) -> None:
    """Compile what there is to compile before the clock starts, and say so while it lasts.

    Raises:
        UserError: the compiler failed, and ``hardware.compile`` is on.
    """
    compilation = run.assembly.compilation
    for remark in (*run.experiment.hardware.remarks(), compilation.reason):
        if remark is not None:
            record.progress.message(remark)
    if not compilation.wanted:
        return
    start = time.perf_counter()

    @contextmanager
    def waiting(text: str) -> Iterator[None]:
        with record.progress.status(text), run.stopwatch.pause():
            yield

    try:
        compilation.run(lambda: stop.signal is not None, waiting)
    except Exception as error:
        if stop.signal is not None:
            return  # Ctrl-C in a terminal reaches the compiler, too
        if run.experiment.hardware.compile == "on":
            raise UserError(f"hardware.compile=on: {error}") from error
        record.progress.message(f"not compiled, since the compiler failed: {error}")
        compilation.wanted = False
    record.facts["compile_s"] = round(time.perf_counter() - start, 2)
