"""Runs rlrun many times, several processes at a time; what was stopped goes on where it was."""

import json
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from rlrun.errors import UserError
from rlrun.runs.files.directory import lock

# Two runs of one thread each use two cores better than one run of two threads.
COMMON = ("hardware.threads=1", "logger=none")


@dataclass(frozen=True)
class Job:
    """One run: the settings as typed on rlrun's command line, and the directory it is made in."""

    directory: Path
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run in a word."""
        return self.directory.name

    @property
    def log(self) -> Path:
        """What the run's process prints."""
        return self.directory.with_name(f"{self.name}.log")


def make_job(directory: Path, settings: Iterable[str], overrides: Iterable[str] = ()) -> Job:
    """Describe a run.

    Args:
        directory: of the run, which will be made.
        settings: as typed on rlrun's command line, without those of every run (`COMMON`).
        overrides: settings that win over all others.
    """
    return Job(directory, (*settings, *COMMON, f"run_dir={directory}", *overrides))


def is_finished(path: Path) -> bool:
    """Tell from a ``run.json`` whether the run has done all of its steps."""
    record = json.loads(path.read_text())
    return record["status"] == "finished" and record["step"] >= record["total_steps"]


def words_for(job: Job) -> list[str] | None:
    """Return rlrun's words to start or continue a run; None if it is finished.

    Raises:
        UserError: the directory has a run with other settings, or one that is running now.
    """
    record = job.directory / "run.json"
    if not record.exists():
        if job.directory.exists():  # killed before its first step: there is nothing to continue
            with lock(job.directory):
                shutil.rmtree(job.directory)
        return list(job.overrides)
    written = yaml.safe_load((job.directory / "overrides.yaml").read_text())
    if written != list(job.overrides):
        raise UserError(f"was started with {' '.join(written)}: choose another --name")
    return None if is_finished(record) else ["resume", str(job.directory)]


def run_all(
    jobs: Sequence[Job], *, parallel: int, finished: Callable[[Job], object] = lambda job: None
) -> list[str]:
    """Run what is not finished, ``parallel`` processes at a time.

    Args:
        jobs: in the order in which they start.
        parallel: processes side by side.
        finished: called with each job that has just been finished.

    Returns:
        One line for each job that failed.
    """
    waiting, failures = deque(jobs), []
    running: dict[Job, subprocess.Popen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.popleft()
                try:
                    words = words_for(job)
                except UserError as error:
                    failures.append(f"{job.name}: {error}")
                    continue
                if words is None:
                    print(f"{job.name}: is finished", flush=True)
                else:
                    print(f"{job.name}: rlrun {' '.join(words)}", flush=True)
                    running[job] = start(words, job.log)
            time.sleep(0.2)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                code = running.pop(job).returncode
                if code == 0:
                    print(f"{job.name}: finished", flush=True)
                    finished(job)
                else:
                    last_words = (job.log.read_text().splitlines() or [""])[-1]
                    failures.append(f"{job.name}: exit code {code}: {last_words} ({job.log})")
                    print(failures[-1], flush=True)
    finally:
        for process in running.values():
            process.terminate()  # rlrun finishes its iteration and writes a checkpoint
        for process in running.values():
            process.wait()
    return failures


def start(words: list[str], log: Path) -> subprocess.Popen:
    """Start rlrun, of this interpreter's installation, with its output appended to ``log``."""
    rlrun = Path(sys.executable).with_name("rlrun")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        return subprocess.Popen(
            [str(rlrun), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C reaches it through us, and once.
            start_new_session=True,
        )
