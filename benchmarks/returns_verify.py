"""Whether this commit still computes a table of returns; `returns.py --verify` asks.

Of each row one seed is trained again, with the words of its run, up to its first evaluations: what
they returned then and return now has to be the same. Two commits that compute the same train the
same, number by number, on machines with the same processor and versions; elsewhere the last bits
differ, and the returns with them.
"""

import math
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import Job, start

from rlrun.analysis.sources import read_archive
from rlrun.analysis.stored_runs import StoredRun
from rlrun.hardware.cpu import processor
from rlrun.loggers.jsonl import read_metrics

TOLERANCE = 1e-6  # relative: what is left of a difference in how a mean is taken
Evaluation = tuple[int, float]  # environment step, mean return


@dataclass(frozen=True)
class Verified:
    """One row's answer.

    Attributes:
        method: name of the benchmark.
        env: choice of rlrun's group ``env``.
        seed: of the run that was trained again.
        then: the first evaluations of the table's run.
        now: those of this commit; empty: it did not come that far.
        cpu: the processor that computed the table; None: nobody wrote it down.
        failure: what the run said if it failed.
    """

    method: str
    env: str
    seed: int
    then: tuple[Evaluation, ...]
    now: tuple[Evaluation, ...]
    cpu: str | None
    failure: str = ""

    @property
    def same(self) -> bool:
        """Whether this commit computes what the table has."""
        return len(self.then) == len(self.now) and all(
            step == step_now and math.isclose(value, value_now, rel_tol=TOLERANCE)
            for (step, value), (step_now, value_now) in zip(self.then, self.now, strict=True)
        )

    def __str__(self) -> str:
        """Say it in a line."""
        row = f"{self.method} {self.env}, seed {self.seed}"
        if self.failure:
            return f"FAILED   {row}: {self.failure}"
        if self.same:
            return f"same     {row}: {_show(self.then)}"
        text = f"DIFFERS  {row}: {_show(self.then)} in the table, {_show(self.now)} now"
        if self.cpu == processor():
            return text
        return f"{text}; perhaps by the processor: {self.cpu or 'unknown'} then, {processor()} now"


def _show(evaluations: tuple[Evaluation, ...]) -> str:
    if not evaluations:
        return "nothing at these steps"
    return ", ".join(f"{value:.6g} at step {step:,}" for step, value in evaluations)


def verify(
    paths: list[Path], *, envs: list[str] | None, evaluations: int, parallel: int
) -> Iterator[Verified]:
    """Train one seed of each row again, up to its first evaluations.

    Args:
        paths: of ``returns_<name>.json``.
        envs: rows to look at; None: all.
        evaluations: how many of each run to compare.
        parallel: processes side by side.

    Yields:
        The answers, in the order of the tables.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(parallel) as pool:
        futures = []
        for path in paths:
            method = path.stem.removeprefix("returns_")
            first: dict[str, StoredRun] = {}
            for run in read_archive(path):
                first.setdefault(run.choices["env"], run)
            for env, run in first.items():
                if envs is None or env in envs:
                    directory = Path(scratch, f"{method}_{env}")
                    futures.append(pool.submit(replay, method, run, directory, evaluations))
        for future in futures:
            yield future.result()


def replay(method: str, run: StoredRun, directory: Path, count: int) -> Verified:
    """Train with the words of a run until it has been evaluated so often, then stop it.

    Args:
        method: name of the benchmark.
        run: of the table.
        directory: of the new run, which will be made.
        count: evaluations to compare.
    """
    words = [word for word in run.overrides if not word.startswith("run_dir=")]
    job = Job(directory, (*words, f"run_dir={directory}"))
    # That of the untrained policy says nothing of the learning.
    curve = zip(run.evaluations.steps.tolist(), run.evaluations.returns.tolist(), strict=True)
    then = tuple((int(step), value) for step, value in curve if step > 0)[:count]
    last = then[-1][0]
    process = start(list(job.overrides), job.log)
    try:
        while process.poll() is None and not any(
            row["step"] >= last for row in _evaluations(directory)
        ):
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it finishes its iteration and ends
        code = process.wait()
    returns = {int(row["step"]): row["eval/return"] for row in _evaluations(directory)}
    now = tuple((step, returns[step]) for step, _ in then if step in returns)
    failure = ""
    if not now and code not in (0, 128 + signal.SIGTERM):
        said = (job.log.read_text().splitlines() or [""])[-1]
        failure = f"exit code {code}: {said}"
    return Verified(method, run.choices["env"], run.seed, then, now, run.cpu, failure)


def _evaluations(directory: Path) -> list[dict[str, Any]]:
    path = directory / "metrics.jsonl"
    return [row for row in read_metrics(path) if "eval/return" in row] if path.exists() else []
