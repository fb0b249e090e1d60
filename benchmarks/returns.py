"""Trains seeds x environments and compares the returns with the published ones.

    python benchmarks/returns.py                                    # everything, two at a time
    python benchmarks/returns.py --envs hopper --seeds 0 1 2        # a part of it
    python benchmarks/returns.py --name gamma --envs swimmer algo.gamma=0.999
    python benchmarks/returns.py --summarize-only                   # tables from what is there

Every run is a process of its own, ``rlrun algo=… env=… seed=…``, in outputs/returns/<name>/. The
same command again goes on where it was stopped: finished runs are kept, killed ones resumed. The
JSON, table and figure are written anew after each run, from all finished runs of that name.

Protocol: the figure of a run is the mean of its evaluations (greedy policy, frozen normalisers,
environments of their own) in the last 10 % of its steps; the figure of a method is the mean and the
interquartile mean over seeds, with a stratified-bootstrap 95 % interval from 3 seeds on.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import yaml
from returns_report import BUDGETS, is_finished, write_report

from rlrun.directory import lock
from rlrun.errors import UserError


@dataclass(frozen=True)
class Job:
    """One run: the settings as typed on rlrun's command line, and the directory it is made in."""

    directory: Path
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run in a word: <env>_s<seed>."""
        return self.directory.name

    @property
    def log(self) -> Path:
        """What the run's process prints."""
        return self.directory.with_suffix(".log")


def make_jobs(
    root: Path,
    *,
    algo: str,
    envs: list[str],
    seeds: list[int],
    total_steps: int | None,
    overrides: list[str],
) -> list[Job]:
    """List the runs, environment by environment, so that a benchmark stopped early has whole rows.

    Args:
        root: directory of the runs, from the repository's root.
        algo: choice of rlrun's group ``algo``.
        envs: choices of its group ``env``, the most important first.
        seeds: seeds for each of them.
        total_steps: environment steps of every run; None: each environment's own budget.
        overrides: more settings for every run.
    """
    jobs = []
    for env in envs:
        steps = total_steps or BUDGETS[env]
        for seed in seeds:
            directory = root / f"{env}_s{seed}"
            settings = [
                f"algo={algo}",
                f"env={env}",
                f"seed={seed}",
                f"total_steps={steps}",
                # Two runs of one thread each use two cores better than one run of two threads.
                "hardware.threads=1",
                "logger=none",
                f"run_dir={directory}",
            ]
            jobs.append(Job(directory, (*settings, *overrides)))
    return jobs


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


def run_all(jobs: list[Job], *, parallel: int, report: Path) -> list[str]:
    """Run what is not finished, ``parallel`` processes at a time.

    Args:
        jobs: in the order in which they start.
        parallel: processes side by side.
        report: path of the report without its suffix.

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
                    write_report(job.directory.parent, report)
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


def main() -> None:
    """Run the benchmark; exit with 1 if one of its runs failed."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Words of the form name=value are settings for every run, as for rlrun.",
    )
    parser.add_argument("--name", default="ppo", help="of this benchmark (default ppo)")
    parser.add_argument("--algo", default="ppo", help="(default ppo)")
    parser.add_argument("--envs", nargs="+", default=list(BUDGETS), help="(default: all known)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--total-steps", type=int, help="of a run (default: the environment's)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--summarize-only", action="store_true", help="train nothing")
    # A setting after `--envs a b` is no environment.
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("--")]
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    unknown = set(arguments.envs) - set(BUDGETS)
    if unknown and arguments.total_steps is None:
        parser.error(f"no budget for {', '.join(sorted(unknown))}: give --total-steps")

    root = Path("outputs", "returns", arguments.name)
    report = arguments.output / f"returns_{arguments.name}"
    failures = []
    if not arguments.summarize_only:
        jobs = make_jobs(
            root,
            algo=arguments.algo,
            envs=arguments.envs,
            seeds=arguments.seeds,
            total_steps=arguments.total_steps,
            overrides=overrides,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            failures = run_all(jobs, parallel=arguments.jobs, report=report)
        except KeyboardInterrupt:
            sys.exit(130)
    print(write_report(root, report))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
