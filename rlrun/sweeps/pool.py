"""Worker processes that train the runs of a sweep side by side.

What two pools of one sweep share is its directory: a run that is locked is being trained by the
other. A worker that fails, or is killed, harms nobody else; its run is tried once more at the end.
"""

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlrun.errors import FAILED, MISTAKEN, UserError
from rlrun.runs.files.standing import Standing, read_standing
from rlrun.runs.signals import StopFlag
from rlrun.sweeps.plan import Job
from rlrun.sweeps.worker import IN_USE, SERVER, train

# What a worker says, in the directory of its run.
LOG = "log.txt"

# Between two looks at the workers, and at the runs that another pool trains.
POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 2.0

# How often a run is tried that fails.
ATTEMPTS = 2

# How a line begins that somebody should see at once.
WARNING = "warning: "


@dataclass(frozen=True)
class Ending:
    """What became of a job.

    Attributes:
        status: finished; failed; interrupted, when the pool was asked to stop.
        reason: why it failed, in a line.
        standing: of its run; None: it cannot be read.
        earlier: whether it was finished when the pool began.
    """

    status: Literal["finished", "failed", "interrupted"]
    reason: str
    standing: Standing | None
    earlier: bool = False


class Display(Protocol):
    """Shows a pool at work."""

    def update(self, pool: "Pool") -> None:
        """Show how far the runs are."""

    def ended(self, job: Job, ending: Ending) -> None:
        """Say what became of a job."""

    def relay(self, job: Job, line: str) -> None:
        """Pass on what a worker says."""


class Worker:
    """A process that trains a job's run."""

    def __init__(self, job: Job, gpu: str | None):
        """Start it.

        Args:
            job: whose run.
            gpu: the only one that it sees; None: all.

        Raises:
            OSError: it cannot be started, or the run's directory cannot be written to.
        """
        self.job = job
        self.gpu = gpu
        path = job.directory / LOG
        # Made here, if need be, and without following a link out of the run's directory.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666))
        self._log = open(path, "rb")  # noqa: SIM115 (as long as the process)
        self._log.seek(0, os.SEEK_END)
        self._last = ""
        theirs, self._lifeline = SERVER.Pipe(duplex=False)
        self._process = SERVER.Process(
            target=train, args=(job.directory, job.plugins, gpu, path, theirs)
        )
        self._process.start()
        theirs.close()

    def exit_code(self) -> int | None:
        """Return its exit code, or minus the signal that killed it; None: it is at work."""
        return self._process.exitcode

    def stop(self) -> None:
        """Ask it to save its run and stop; asked twice, it ends at once."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGTERM)

    def warnings(self) -> list[str]:
        """Return the warnings that it has written since the last call."""
        lines = [line.decode(errors="replace").rstrip("\n") for line in self._log]
        self._last = next((line for line in reversed(lines) if line.strip()), self._last)
        return [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]

    def why_it_failed(self, code: int) -> str:
        """Return why it has failed: what it has written at last, or how it ended.

        Args:
            code: its exit code.
        """
        self.warnings()
        # With others it had no chance to say anything.
        said = self._last.removeprefix("rlrun: ") if code in (FAILED, MISTAKEN) else ""
        return said or f"its process ended with {describe(code)}"

    def close(self) -> None:
        """Let go of the process, which stops if it has not ended."""
        self._lifeline.close()
        self._log.close()


class Pool:
    """Trains jobs, a number of them at a time.

    Attributes:
        jobs: all, in the order in which they are begun.
        workers: at work.
        ended: what became of the jobs that have ended.
    """

    def __init__(self, jobs: Sequence[Job], slots: Sequence[str | None], display: Display):
        """Begin without a worker.

        Args:
            jobs: with their runs, some of which may be finished.
            slots: for each worker that there may be at a time the GPU that it sees; None: all.
            display: shows what happens.
        """
        self.jobs = list(jobs)
        self.workers: list[Worker] = []
        self.ended: dict[Job, Ending] = {}
        self._display = display
        self._free = list(slots)[::-1]
        self._waiting = deque(jobs)
        self._elsewhere: list[Job] = []
        self._looked = 0.0
        self._attempts: Counter[Job] = Counter()

    def run(self, stop: StopFlag) -> None:
        """Train until every job has ended, or has been asked to stop.

        Args:
            stop: says when a signal asks for that. A second one ends this process, whereupon the
                workers end at once.
        """
        self._pass_over_finished()
        asked = False
        while self._waiting or self.workers or self._elsewhere:
            if stop.signal is None:
                self._look_elsewhere()
                self._start()
            elif not asked:
                asked = True
                self._waiting.clear()
                self._elsewhere.clear()
                for worker in self.workers:
                    worker.stop()
            self._collect()
            self._display.update(self)
            time.sleep(POLL_SECONDS)

    def _pass_over_finished(self) -> None:
        """Count what was finished before, so that the first look at the display is true."""
        for job in list(self._waiting):
            standing = stand(job)
            if standing is not None and standing.status == "finished":
                self._waiting.remove(job)
                self._end(job, Ending("finished", "", standing, earlier=True))

    def _start(self) -> None:
        """Start workers as long as there are jobs and room for them."""
        while self._free and self._waiting:
            job = self._waiting.popleft()
            standing = stand(job)
            if standing is not None and standing.status == "running":
                self._elsewhere.append(job)
            elif standing is not None and standing.status == "finished":
                self._end(job, Ending("finished", "", standing))
            else:
                gpu = self._free.pop()
                try:
                    self.workers.append(Worker(job, gpu))
                except OSError as error:
                    self._free.append(gpu)
                    self._end(job, Ending("failed", str(error), standing))

    def _look_elsewhere(self) -> None:
        """See what has become of the runs that another pool was training."""
        now = time.monotonic()
        if now - self._looked < ELSEWHERE_SECONDS:
            return
        self._looked = now
        for job in list(self._elsewhere):
            standing = stand(job)
            if standing is None or standing.status != "running":
                self._elsewhere.remove(job)
                self._waiting.append(job)

    def _collect(self) -> None:
        """See which workers have ended, and how."""
        for worker in list(self.workers):
            code = worker.exit_code()
            for line in worker.warnings():
                self._display.relay(worker.job, line)
            if code is None:
                continue
            self.workers.remove(worker)
            self._free.append(worker.gpu)
            self._judge(worker, code)
            worker.close()

    def _judge(self, worker: Worker, code: int) -> None:
        """Decide what becomes of a job whose worker has ended."""
        job, standing = worker.job, stand(worker.job)
        self._attempts[job] += 1
        if code == 0:
            self._end(job, Ending("finished", "", standing))
        elif code == IN_USE:
            self._elsewhere.append(job)
        elif code in (128 + signal.SIGTERM, -signal.SIGTERM):
            self._end(job, Ending("interrupted", "", standing))
        else:
            reason = worker.why_it_failed(code)
            if code != MISTAKEN and self._attempts[job] < ATTEMPTS:
                self._display.relay(job, f"failed: {reason}; it is tried again at the end")
                self._waiting.append(job)
            else:
                self._end(job, Ending("failed", reason, standing))

    def close(self) -> None:
        """Let go of the workers, which stop if something else than their end has ended the pool."""
        for worker in self.workers:
            worker.close()

    def _end(self, job: Job, ending: Ending) -> None:
        self.ended[job] = ending
        self._display.ended(job, ending)


def stand(job: Job) -> Standing | None:
    """Return how far a job's run is; None: its files cannot be read."""
    try:
        return read_standing(job.directory)[0]
    except (OSError, ValueError, OverflowError, UserError):
        return None


def describe(code: int) -> str:
    """Say how a process ended: "signal SIGKILL", or "exit code 3"."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
