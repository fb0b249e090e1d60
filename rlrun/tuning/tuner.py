"""Trials side by side: draws points of the search space, and trains them until there are enough."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import filelock
import numpy as np
import optuna
from optuna.trial import TrialState

from rlrun.errors import UserError
from rlrun.runs.files.directory import LOCK, shared
from rlrun.runs.signals import StopFlag
from rlrun.sweeps.pool import ELSEWHERE_SECONDS, POLL_SECONDS
from rlrun.tuning.jobs import RunMaker
from rlrun.tuning.space import distributions, nearest_point, rounded
from rlrun.tuning.study import Question, make_sampler
from rlrun.tuning.trials import Progress, Trial

# Trials before those that were tried say where to look: Optuna's own number.
STARTUP_TRIALS = 10

# Chance that a setting of them has its usual value. What others have chosen before is a better
# beginning than a point drawn at random, of which most learn nothing (Mallik et al. 2023,
# "PriorBand", arXiv:2306.12370, draw from around it, too).
USUAL_SHARE = 2 / 3

STATES = {
    Progress.COMPLETE: TrialState.COMPLETE,
    Progress.PRUNED: TrialState.PRUNED,
    Progress.FAILED: TrialState.FAIL,
}


class TrialsDisplay(Protocol):
    """Shows trials at work."""

    def update(self, running: Sequence[Trial], study: optuna.Study) -> None:
        """Show how far they are."""

    def ended(self, trial: Trial, progress: Progress) -> None:
        """Say what became of a trial."""

    def relay(self, number: int, line: str) -> None:
        """Pass on what a run of a trial says."""

    def refused(self, number: int, reason: str) -> None:
        """Say that a trial's values make no run."""


class Tuner:
    """Keeps trials going, as many as there is room for.

    Several processes can tune one study: its journal says which trials there are, and a lock in a
    trial's directory whose it is. A trial whose process is gone is taken over where it was.
    """

    def __init__(
        self,
        study: optuna.Study,
        directory: Path,
        question: Question,
        make_jobs: RunMaker,
        *,
        usual: Mapping[str, Any],
        trials: int,
        evaluations: int,
        slots: Sequence[str | None],
        display: TrialsDisplay,
    ):
        """Begin without a trial of this process.

        Args:
            study: Optuna's.
            directory: of the study.
            question: what it is to find out.
            make_jobs: makes the runs of a trial.
            usual: settings of the run without searched values, which the search begins with.
            trials: of the study altogether.
            evaluations: of a whole run.
            slots: for each trial that there may be at a time the GPU that it sees; None: all.
            display: shows what happens.
        """
        self._study = study
        self._directory = directory
        self._question = question
        self._space = distributions(question.space)
        self._make_jobs = make_jobs
        self._usual = nearest_point(self._space, usual)
        self._trials = trials
        self._startup = min(STARTUP_TRIALS, max(1, trials // 2))
        self._evaluations = evaluations
        self._free = list(slots)[::-1]
        self._display = display
        self._running: list[Trial] = []
        self._began = False

    def run(self, stop: StopFlag) -> None:
        """Go on until there are enough trials that have ended, or a signal asks to stop.

        Trials of another process are waited for: the best values are those of all.

        Args:
            stop: says so; then trials that are not complete stay as they are, for the next time.
        """
        asked = False
        while True:
            if stop.signal is None:
                self._start()
            elif not asked:
                asked = True
                for trial in self._running:
                    trial.stop()
            if not self._running and (asked or self._over()):
                return
            for trial in list(self._running):
                progress = trial.look()
                for line in trial.warnings():
                    self._display.relay(trial.number, line)
                if progress is not Progress.GOES_ON:
                    self._end(trial, progress)
            self._display.update(self._running, self._study)
            time.sleep(POLL_SECONDS if self._running else ELSEWHERE_SECONDS)

    def close(self) -> None:
        """Let go of the trials, whose runs stop if something else than their end has ended this."""
        for trial in self._running:
            trial.close()

    def _over(self) -> bool:
        """Tell whether no trial is left to be trained, here or by another process."""
        ended = all(trial.state.is_finished() for trial in self._all())
        return ended and len(self._all()) >= self._trials

    def _start(self) -> None:
        """Begin or take over trials as long as there is room for them."""
        while self._free:
            with shared(self._directory):  # or two processes would have one trial
                drawn = self._take_over() or self._draw()
            if drawn is None:
                return
            trial, lock = drawn
            gpu = self._free.pop()
            try:
                experiments = self._make_jobs.compose(rounded(trial.params))
            except UserError as error:  # values that do not go together
                self._display.refused(trial.number, str(error))
                trial.set_user_attr("error", str(error))
                self._study.tell(trial, state=TrialState.FAIL)
                lock.release()
                self._free.append(gpu)
                continue
            jobs = self._make_jobs.make(self._place(trial.number), experiments)
            self._running.append(
                Trial(
                    trial,
                    jobs,
                    evaluations=self._evaluations,
                    reported=self._reported(trial.number),
                    gpu=gpu,
                    lock=lock,
                )
            )

    def _all(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials there are, of this process and of others."""
        return self._study.get_trials(deepcopy=False)

    def _draw(self) -> tuple[optuna.Trial, filelock.BaseFileLock] | None:
        """Draw a new trial's values; None: there are enough trials."""
        drawn = [trial for trial in self._all() if trial.state is not TrialState.WAITING]
        number = len(drawn)
        if number >= self._trials:
            return None
        if len(self._all()) == number and (usual := self._usual_part(number)):
            self._study.enqueue_trial(usual)
        if not self._began:
            # Several processes with one stream of random numbers would draw the same.
            sampler = make_sampler(self._question.sampler, number, self._startup)
            self._study.sampler, self._began = sampler, True
        trial = self._study.ask(self._space)
        return trial, self._lock(trial.number)

    def _usual_part(self, number: int) -> dict[str, Any]:
        """Return the usual values that a trial has: all in the first one, some in those after it.

        Args:
            number: of the trial.
        """
        if number == 0:
            return self._usual
        if number >= self._startup or self._question.sampler == "random":
            return {}
        chance = np.random.default_rng(number).random(len(self._usual))
        kept = zip(self._usual.items(), chance < USUAL_SHARE, strict=True)
        return dict(item for item, is_kept in kept if is_kept)

    def _take_over(self) -> tuple[optuna.Trial, filelock.BaseFileLock] | None:
        """Find a trial whose process is gone; None: there is none.

        Raises:
            UserError: it has values of another space.
        """
        own = {trial.number for trial in self._running}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in own:
                continue
            if not trial.distributions.items() <= self._space.items():
                raise UserError(f"trial {trial.number} of {self._directory} is of another space")
            try:
                lock = self._lock(trial.number)
            except filelock.Timeout:
                continue  # another process has it
            taken = optuna.Trial(self._study, trial._trial_id)
            if trial.distributions == self._space:
                return taken, lock
            taken.set_user_attr("error", "its process was killed when it had drawn half of it")
            self._study.tell(taken, state=TrialState.FAIL)
            lock.release()
        return None

    def _reported(self, number: int) -> Iterable[int]:
        """Return the steps at which a trial has reported a value."""
        return self._all()[number].intermediate_values

    def _lock(self, number: int) -> filelock.BaseFileLock:
        """Make a trial this process's.

        Raises:
            filelock.Timeout: another one has it.
        """
        place = self._place(number)
        place.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place / LOCK, preserve_lock_file=True)
        lock.acquire(timeout=0)
        return lock

    def _place(self, number: int) -> Path:
        return self._directory / f"trial_{number:03d}"

    def _end(self, trial: Trial, progress: Progress) -> None:
        """Tell Optuna what became of a trial, unless it goes on another time."""
        self._running.remove(trial)
        self._free.append(trial.gpu)
        if progress in STATES:
            trial.tell(self._study, STATES[progress])
        self._display.ended(trial, progress)
        trial.close()
