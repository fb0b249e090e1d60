"""Says whether two commits compute the same: every algorithm and every estimator, bit for bit.

    python benchmarks/same_numbers.py 9630860 HEAD
    python benchmarks/same_numbers.py 1d00e09 HEAD --tolerance 1e-6 --rows 1

Each commit is checked out beside the other and runs the same command lines: short, eager, one
seed. Rows of metrics.jsonl (but for the clock's numbers) and the weights of the newest checkpoint
are compared. With a tolerance, numbers may differ by so much, relative to the larger of them and 1;
with ``--rows``, only the first rows are looked at, since what differs by a rounding error drifts
apart.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import safetensors.torch
from checkouts import checked_out, train

from rlrun.runs.files.disk import CHECKPOINTS

# An estimator that is not the algorithm's own, with an algorithm that can use it.
ESTIMATORS = {
    "algo=ppo": ("td", "nstep", "baseline_value", "q_value", "advantage_q"),
    "algo=a2c": ("vtrace",),
    "algo=reinforce": (
        "total_return",
        "baseline_constant",
        "baseline_optimal",
        "baseline_value",
        "reinforce_pp",
    ),
    "algo=grpo": ("rloo", "dr_grpo", "time_group", "reinforce_pp"),
}
ALGORITHMS = (
    "reinforce",
    "actor_critic_td",
    "actor_critic_q",
    "a2c",
    "ppo",
    "ppo_kl",
    "trpo",
    "rloo",
    "grpo",
    "dapo",
    "gspo",
    "cispo",
)
# Methods with a replay buffer, and words for short runs of them.
FROM_REPLAY = (
    ("dqn", "cartpole"),
    ("sac", "cartpole"),
    ("sac", "hopper"),
    ("ddpg", "hopper"),
    ("td3", "hopper"),
)
FEW_UPDATES = (
    "algo.horizon=8",
    "algo.replay.warmup_steps=1_000",
    "algo.replay.updates_per_step=0.25",
)
ON_TABLES = (
    "value_iteration",
    "policy_iteration",
    "q_learning",
    "double_q_learning",
    "sarsa",
    "expected_sarsa",
    "mc_control",
    "mc_prediction",
    "td_prediction",
)
# On tokens, and what can begin without another run.
ON_TOKENS = ("grpo", "dapo", "ppo", "reinforce", "sft", "rft")

# What learns from another run's policy, of which there is none here.
FROM_ANOTHER_RUN = ("dpo", "cdpo", "ipo", "distill")
PLAIN = (
    "seed=3",
    "hardware.compile=off",
    "hardware.threads=1",
    "evaluation.episodes=2",
    "evaluation.every_steps=4_000",
    "log_every_steps=1",
    "total_steps=6_000",
)
CLOCKS = ("time", "speed")

# Numbers that are another thing since: the word of the case, the number, and why.
CHANGED = (("algo=reinforce", "update", "the steps of the critic count as well"),)


def cases() -> list[tuple[str, ...]]:
    """The command lines, without what they share (`PLAIN`)."""
    pairs = [
        (f"algo={algo}", f"env={env}") for algo in ALGORITHMS for env in ("cartpole", "hopper")
    ]
    others = [
        (algo, "env=cartpole", f"advantage={name}")
        for algo, names in ESTIMATORS.items()
        for name in names
    ]
    replay = [(f"algo={algo}", f"env={env}", *FEW_UPDATES) for algo, env in FROM_REPLAY]
    tables = [(f"algo={algo}", "env=frozen_lake") for algo in ON_TABLES]
    language = [(f"algo={algo}", "env=add") for algo in ON_TOKENS]
    return [*pairs, *others, *replay, *tables, *language]


def rows(directory: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics, without the clock's numbers.

    Nor the evaluation before the first step, which older commits do not have.
    """
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    every = [json.loads(line) for line in lines]
    return [
        {k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in every if row["step"]
    ]


def near(one: float | None, other: float | None, tolerance: float) -> bool:
    """Whether two numbers are the same, or as near as they may be apart."""
    if one == other or one is None or other is None:
        return one == other
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def changed(words: tuple[str, ...]) -> set[str]:
    """The numbers of a case that are not compared (`CHANGED`)."""
    return {name for word, name, _ in CHANGED if word in words}


def compare(
    one: Path,
    other: Path,
    *,
    tolerance: float,
    count: int | None,
    ignored: Collection[str] = (),
) -> str:
    """Say in a line where two runs differ first; nothing if they do not.

    Args:
        one: a run's directory.
        other: that of the run that it is to equal.
        tolerance: how far apart two numbers may be, relative to the larger of them and 1.
        count: rows to compare, in place of all and the weights.
        ignored: names of numbers that are not compared.
    """
    ours, theirs = rows(one)[:count], rows(other)[:count]
    if len(ours) != len(theirs):
        return f"{len(ours)} rows and {len(theirs)}"
    for number, (row, expected) in enumerate(zip(ours, theirs, strict=True)):
        for name in sorted((row.keys() & expected.keys()).difference(ignored)):
            if not near(row[name], expected[name], tolerance):
                return f"row {number}: {name} is {row[name]} and {expected[name]}"
        only = sorted((row.keys() ^ expected.keys()).difference(ignored))
        if only and not tolerance:
            return f"row {number}: only one has {', '.join(only)}"
    if count is not None:
        return ""
    weights = [
        list(
            safetensors.torch.load_file(
                max((path / CHECKPOINTS).glob("step-*")) / "weights.safetensors"
            ).values()
        )
        for path in (one, other)
    ]
    same = len(weights[0]) == len(weights[1]) and all(
        a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())
        for a, b in zip(*weights, strict=True)
    )
    return "" if same else "the weights differ"


def main() -> None:
    """Compare two commits, case by case; exit with 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commits", nargs=2)
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--only", default="", help="cases whose words contain this")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        checked_out(arguments.commits, Path(scratch)) as checkouts,
    ):

        def case(number: int, words: tuple[str, ...]) -> str:
            directories = [Path(scratch, f"run{number}_{k}") for k in range(2)]
            for checkout, directory in zip(checkouts, directories, strict=True):
                try:
                    train(checkout, [*words, *PLAIN], directory, {"OMP_NUM_THREADS": "1"})
                except RuntimeError as error:
                    return str(error)
            return compare(
                *directories,
                tolerance=arguments.tolerance,
                count=arguments.rows,
                ignored=changed(words),
            )

        chosen = [words for words in cases() if arguments.only in " ".join(words)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(case, range(len(chosen)), chosen))
    for words, answer in zip(chosen, answers, strict=True):
        print(f"{'same' if not answer else 'DIFFERENT':9}  {' '.join(words)}  {answer}")
    sys.exit(any(answers))


if __name__ == "__main__":
    main()
