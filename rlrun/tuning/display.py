"""What a study looks like while it goes on."""

from collections.abc import Sequence

import optuna
from optuna.trial import TrialState
from rich.console import Console

from rlrun.loggers.progress import number
from rlrun.runs.files.standing import Standing
from rlrun.sweeps.display import RunTable
from rlrun.sweeps.plan import Job
from rlrun.tuning.trials import Progress, Trial


class StudyDisplay:
    """Shows the trials that are trained; what becomes of one is a line."""

    def __init__(self, trials: int, console: Console):
        """Show the display.

        Args:
            trials: of the study altogether.
            console: where to draw.
        """
        self._trials = trials
        self._table = RunTable(console, lambda job: f"{job.directory.parent.name} {job.name}")

    def update(self, running: Sequence[Trial], study: optuna.Study) -> None:
        """Show how far the trials are."""

        def whole(standings: dict[Job, Standing]) -> str:
            return headline(study, self._trials)

        self._table.update([trial.job for trial in running], whole)

    def ended(self, trial: Trial, progress: Progress) -> None:
        """Say in a line what became of a trial."""
        text = f"trial {trial.number}: {progress.value}"
        if progress is Progress.COMPLETE:
            text += f", {number(trial.value)} ({', '.join(map(number, trial.returns))})"
        self._table.say(f"{text}: {trial.reason}" if trial.reason else text)

    def relay(self, number: int, line: str) -> None:
        """Pass on what a run of a trial says."""
        self._table.say(f"trial {number}: {line}")

    def refused(self, number: int, reason: str) -> None:
        """Say that a trial's values make no run."""
        self._table.say(f"trial {number}: {reason}")

    def close(self) -> None:
        """Take the table away."""
        self._table.close()


def headline(study: optuna.Study, trials: int) -> str:
    """Say in a line how far a study is: "7 of 20 trials: 4 complete, 2 pruned · best 198.2"."""
    found = study.get_trials(deepcopy=False)
    counts = {
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
        "running": TrialState.RUNNING,
    }
    parts = [
        f"{count} {name}"
        for name, state in counts.items()
        if (count := sum(trial.state is state for trial in found))
    ]
    text = f"{len(found)} of {trials} trials"
    text += f": {', '.join(parts)}" if parts else ""
    complete = [trial.value for trial in found if trial.state is TrialState.COMPLETE]
    best = max((value for value in complete if value is not None), default=None)
    return text if best is None else f"{text} · best {number(best)}"
