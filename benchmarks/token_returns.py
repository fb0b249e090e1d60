"""Trains the tasks of language up to the marks that are set for them, over three seeds.

    python benchmarks/token_returns.py                    # all rows, two runs at a time
    python benchmarks/token_returns.py --rows sort add    # a part of them
    python benchmarks/token_returns.py --summarize-only

Every run is a process of its own in outputs/token_returns/; the same command again goes on where it
was stopped. A row is of what the last evaluation of its runs says of prompts that training never
saw (of `mod_add`, whose table is learned by heart, of all). Some begin as a run that SFT has taught
for a while. Values were chosen on seeds from 100 on, and the table is of others.

Two rows are controls that must stay where they are: a policy that is paid by chance
(`paid_by_chance.py`), and one whose steps have no length. Where something is learned, there is a
mistake in how right answers are counted.
"""

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from jobs import Job, is_finished, make_job, run_all
from measure import HERE, describe_machine

from rlrun.loggers.jsonl import read_metrics

SEEDS = (10, 11, 12)
RUNS, REPORT = Path("outputs", "token_returns"), HERE / "results" / "token_returns"


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

    Attributes:
        before, after: the row's figure at the beginning and at the end.
        seconds: of training, compiling apart.
        commit: of rlrun.
    """

    before: float
    after: float
    seconds: float
    commit: str


class Mark(NamedTuple):
    """What is to be reached.

    Attributes:
        words: it, for a reader.
        holds: says it of a run.
    """

    words: str
    holds: Callable[[Outcome], bool]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        words: of its runs.
        start: words of the runs that these begin as; none: random weights.
        figure: of the rows of metrics.
        mark: what is to be reached.
    """

    words: Sequence[str]
    start: Sequence[str] = ()
    figure: str = "eval/outcome"
    mark: Mark


RIGHT = Mark("≥ .95", lambda run: run.after >= 0.95)
QUICKLY_RIGHT = Mark("≥ .99 in 3 minutes", lambda run: run.after >= 0.99 and run.seconds <= 180)
VERL = Mark("≥ .2 (verl's gate)", lambda run: run.after >= 0.2)
DOUBLED = Mark("≥ 2 x its start", lambda run: run.after >= 2 * run.before)
FLAT = Mark("no gain", lambda run: run.after <= run.before + 0.05)
EVALUATED = ("evaluation.episodes=512",)
ROWS = {
    **{
        f"mod_add {algo}": Row(words=[f"algo={algo}", "env=mod_add"], mark=QUICKLY_RIGHT)
        for algo in ("grpo", "rloo", "dapo", "ppo", "reinforce")
    },
    "copy": Row(words=["algo=ppo", "env=copy", "total_steps=2_000_000"], mark=RIGHT),
    "sort": Row(words=["algo=grpo", "env=sort", "total_steps=2_000_000"], mark=RIGHT),
    "digit_sequence": Row(
        # As many tokens as verl's 200 iterations of 800 responses.
        words=["algo=ppo", "env=digit_sequence", "total_steps=1_000_000"],
        figure="train/return",
        mark=VERL,
    ),
    "add": Row(
        start=["algo=sft", "env=add", "total_steps=240_000"],
        # Paid for each digit: answers of three digits are never right at first. Without a penalty
        # for leaving the start, wrong answers become certain, and no group says otherwise.
        words=[
            *["algo=grpo", "env=add", "env.reward=fraction", "total_steps=6_000_000"],
            *["algo.kl.reference=${model.init}", "algo.kl.coefficient=0.04"],
        ],
        mark=RIGHT,
    ),
    "countdown": Row(
        # With numbers to 9 there are so few prompts that training learns them by heart.
        start=["algo=sft", "env=countdown", "env.largest=20", "total_steps=600_000"],
        words=[
            *["algo=grpo", "env=countdown", "env.largest=20", "env.reward=exact"],
            "total_steps=3_000_000",
        ],
        figure="eval/pass@1",
        mark=DOUBLED,
    ),
    "copy, paid by chance": Row(
        words=[
            *["algo=grpo", "env=copy", "total_steps=500_000"],
            *["env._target_=paid_by_chance.PaidByChance", "plugins=[paid_by_chance]"],
        ],
        mark=FLAT,
    ),
    "copy, frozen": Row(
        words=[
            "algo=grpo",
            "env=copy",
            "algo.optimizer.learning_rate=1e-30",
            "total_steps=100_000",
        ],
        mark=FLAT,
    ),
}


def outcome(directory: Path, figure: str) -> Outcome:
    """Read what a run has come to; a figure of training is the mean of its last tenth."""
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if figure in row]
    last = rows[-1:] if figure.startswith("eval/") else rows[-(len(rows) // 10 or 1) :]
    record = json.loads((directory / "run.json").read_text())
    after = statistics.fmean(row[figure] for row in last)
    return Outcome(rows[0][figure], after, record["time_s"], record["git_commit"][:7])


def directory_of(name: str, seed: int, role: str = "") -> Path:
    """Return the directory of a run."""
    return RUNS / f"{re.sub('[^a-z_]+', '_', name)}{role}_s{seed}"


def make_jobs(names: Sequence[str], seeds: Sequence[int]) -> tuple[list[Job], list[Job]]:
    """Return the runs that others begin as, and all others."""
    starts, jobs = [], []
    for name in names:
        row = ROWS[name]
        for seed in seeds:
            words = [*EVALUATED, f"seed={seed}"]
            if row.start:
                start = directory_of(name, seed, "_start")
                starts.append(make_job(start, [*row.start, *words]))
                words.append(f"model.init={start.resolve()}")
            jobs.append(make_job(directory_of(name, seed), [*row.words, *words]))
    return starts, jobs


def summarize(seeds: Sequence[int]) -> None:
    """Write the JSON and the table of all rows whose runs are finished."""
    lines = [
        "| task | words | at first | at the end | mark | reached | minutes | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    content = {}
    for name, row in ROWS.items():
        places = [directory_of(name, seed) for seed in seeds]
        records = [place / "run.json" for place in places]
        if not all(record.exists() and is_finished(record) for record in records):
            continue
        runs = [outcome(place, row.figure) for place in places]
        reached = [row.mark.holds(run) for run in runs]
        content[name] = {
            "start": row.start,
            "words": row.words,
            "figure": row.figure,
            "mark": row.mark.words,
            "runs": [asdict(run) for run in runs],
            "reached": reached,
        }
        words = " ".join(row.words)
        if row.start:
            words = f"{' '.join(row.start)}; {words} model.init=…"
        before = ", ".join(f"{run.before:.3f}" for run in runs)
        after = ", ".join(f"{run.after:.3f}" for run in runs)
        minutes = ", ".join(f"{run.seconds / 60:.1f}" for run in runs)
        commits = ", ".join(sorted({run.commit for run in runs}))
        lines.append(
            f"| {name} | `{words}` | {before} | {after} | {row.figure} {row.mark.words} | "
            f"{sum(reached)} of {len(runs)} | {minutes} | {commits} |"
        )
    result = {"machine": describe_machine(), "seeds": seeds, "rows": content}
    REPORT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    REPORT.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Train and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument("--summarize-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    failures = []
    if not arguments.summarize_only:
        # Where the runs find `paid_by_chance`.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        for jobs in make_jobs(arguments.rows, arguments.seeds):
            failures += run_all(jobs, parallel=arguments.jobs)
    summarize(arguments.seeds)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
