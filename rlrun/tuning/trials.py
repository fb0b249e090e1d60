"""A trial of a study: the runs of one point of the search space, one seed after the other."""

import signal
from collections.abc import Iterable, Sequence
from enum import Enum

import numpy as np
import optuna
from filelock import BaseFileLock
from optuna.trial import TrialState

from rlrun.loggers.jsonl import read_metrics
from rlrun.sweeps.plan import Job
from rlrun.sweeps.pool import Worker, stand
from rlrun.sweeps.worker import IN_USE


class Progress(Enum):
    """How a trial stands."""

    GOES_ON = "goes on"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    STOPPED = "stopped"


class Trial:
    """Trains the runs of a trial, and tells Optuna of their evaluations.

    Attributes:
        number: of the trial in its study.
        jobs: a run for each seed.
        returns: the figures of the runs that have finished.
        reason: why it failed.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        jobs: Sequence[Job],
        *,
        evaluations: int,
        reported: Iterable[int],
        gpu: str | None,
        lock: BaseFileLock,
    ):
        """Begin with the first run that has not finished.

        Args:
            trial: Optuna's.
            jobs: a run for each seed.
            evaluations: of a whole run.
            reported: steps that an earlier process has told Optuna of.
            gpu: the only one that its runs see; None: all.
            lock: of the trial, which is this process's as long as it is held.
        """
        self.number = trial.number
        self.jobs = list(jobs)
        self.returns: list[float] = []
        self.reason = ""
        self.gpu = gpu
        self._trial = trial
        self._evaluations = evaluations
        self._lock = lock
        self._reported = set(reported)
        self._pruned = False
        self._stopping = False
        self._worker: Worker | None = None

    @property
    def job(self) -> Job:
        """The run that is being trained."""
        return self.jobs[len(self.returns)]

    @property
    def value(self) -> float:
        """What the trial comes to: the mean of its runs' figures."""
        return float(np.mean(self.returns))

    def look(self) -> Progress:
        """See how the present run is, report its evaluations, begin the next one."""
        try:
            return self._look()
        except (OSError, ValueError) as error:  # a full disk, say, or files that are damaged
            self.reason = " ".join(str(error).split())
            self.close_worker()
            return Progress.FAILED

    def _look(self) -> Progress:
        if self._worker is None:
            return self._begin()
        code = self._worker.exit_code()
        if not self._pruned and self._report():
            self._pruned = True
            self._worker.stop()
        if code is None:
            return Progress.GOES_ON
        reason = "" if code == 0 else self._worker.why_it_failed(code)
        self.close_worker()
        if self._pruned:
            return Progress.PRUNED
        if code == IN_USE:
            return Progress.GOES_ON
        if self._stopping or code in (128 + signal.SIGTERM, -signal.SIGTERM):
            return Progress.STOPPED
        if code != 0:
            self.reason = reason
            return Progress.FAILED
        return self._begin()

    def stop(self) -> None:
        """Ask the present run to stop after a checkpoint, and begin no other."""
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()

    def tell(self, study: optuna.Study, state: TrialState) -> None:
        """Tell Optuna what became of it."""
        if self.reason:
            self._trial.set_user_attr("error", self.reason)
        self._trial.set_user_attr("returns", self.returns)
        value = self.value if state is TrialState.COMPLETE else None
        study.tell(self._trial, value, state)

    def warnings(self) -> list[str]:
        """Return what its present run has warned of since the last call."""
        return [] if self._worker is None else self._worker.warnings()

    def close_worker(self) -> None:
        """Let go of the present run's process, which stops if it has not ended."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def close(self) -> None:
        """Let others have the trial, if it goes on."""
        self.close_worker()
        self._lock.release()

    def _begin(self) -> Progress:
        """Begin the first run that has not finished, after a look at those that have.

        One that is being trained is left alone: it is the end of a process whose trial this was.
        """
        while len(self.returns) < len(self.jobs):
            if self._stopping:
                return Progress.STOPPED
            standing = stand(self.job)
            if standing is not None and standing.status == "running":
                return Progress.GOES_ON
            if standing is None or standing.status != "finished":
                self._worker = Worker(self.job, self.gpu)
                return Progress.GOES_ON
            pruned = self._report()
            if standing.final_return is None:
                self.reason = "a run has no evaluation in its last tenth"
                return Progress.FAILED
            self.returns.append(standing.final_return)
            if len(self.returns) > 1:
                self._tell_optuna(self._evaluations + len(self.returns) - 2, self.value)
                pruned = self._trial.should_prune()
            if pruned and len(self.returns) < len(self.jobs):
                return Progress.PRUNED
        return Progress.COMPLETE

    def _report(self) -> bool:
        """Tell Optuna what is new; return whether it would rather stop.

        The first run reports each of its evaluations, a later one its end alone, as the mean of all
        figures so far: at its beginning it is no better than an untrained one, which says nothing
        of the trial.
        """
        if self.returns:
            return False
        path = self.job.directory / "metrics.jsonl"
        rows = read_metrics(path) if path.exists() else []
        values = [row["eval/return"] for row in rows if row["step"] and "eval/return" in row]
        news = list(enumerate(values[: self._evaluations]))[len(self._reported) :]
        for step, value in news:
            self._tell_optuna(step, value)
        return bool(news) and self._trial.should_prune()

    def _tell_optuna(self, step: int, value: float) -> None:
        """Report a value, once."""
        if step not in self._reported:
            self._trial.report(value, step)
            self._reported.add(step)
