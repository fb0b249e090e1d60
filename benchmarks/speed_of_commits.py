"""Compares the speed of two commits: steps/s, and the wait for the compiler.

    python benchmarks/speed_of_commits.py 1d00e09 HEAD                # PPO on Hopper
    python benchmarks/speed_of_commits.py 1d00e09 HEAD --rounds 2 algo=trpo env=hopper

Both run the same command line, as a user would, one after the other and in alternating order. In
the first round each finds an empty cache of compiled code (cold), later what it wrote (warm). Only
within a round are two figures comparable.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from checkouts import checked_out, short_hash, train
from measure import describe_machine, split_time

from rlrun.loggers.jsonl import read_metrics

USUAL = ["algo=ppo", "env=hopper"]
# What is compared is not how often the one and the other evaluates by default.
SHARED = ["hardware.compile=on", "logger=none", "evaluation.every_steps=50_000"]


def measure(checkout: Path, words: list[str], directory: Path, cache: Path) -> dict[str, float]:
    """Train once; steps/s from the end of the first iteration to that of the last, and the wait."""
    train(checkout, words, directory, {"TORCHINDUCTOR_CACHE_DIR": str(cache)})
    parts = split_time(read_metrics(directory / "metrics.jsonl"))
    record = json.loads((directory / "run.json").read_text())
    return {"steps_per_s": 1e6 / sum(parts.values()), "compile_s": record["compile_s"], **parts}


def main() -> None:
    """Measure, print each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commits", nargs=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--output", type=Path, help="a JSON with every round")
    arguments, words = parser.parse_known_args()
    commits = [short_hash(word) for word in arguments.commits]
    if commits[0] == commits[1]:
        parser.error(f"both are {commits[0]}")
    words = [*(words or USUAL), *SHARED, f"total_steps={arguments.steps}"]
    rounds = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        checked_out(commits, Path(scratch)) as checkouts,
    ):
        contenders = list(zip(commits, checkouts, strict=True))
        for number in range(arguments.rounds):
            figures = {}
            for commit, checkout in contenders[:: -1 if number % 2 else 1]:
                directory = Path(scratch, f"run_{checkout.name}_{number}")
                cache = Path(scratch, f"cache_{checkout.name}")
                figures[commit] = measure(checkout, words, directory, cache)
                speed, wait = (figures[commit][name] for name in ("steps_per_s", "compile_s"))
                print(
                    f"{number} {commit}: {speed:,.0f} steps/s, compiling {wait:.1f} s", flush=True
                )
            rounds.append(figures)
    old, new = commits
    ratios = [each[new]["steps_per_s"] / each[old]["steps_per_s"] for each in rounds]
    print(
        f"{new} is {statistics.median(ratios):.2f} times {old} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)"
    )
    if arguments.output is not None:
        report = {"words": words, "machine": describe_machine(), "rounds": rounds}
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
