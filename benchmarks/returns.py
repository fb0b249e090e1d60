"""Trains seeds x environments and compares the returns with the published ones.

    python benchmarks/returns.py                                    # PPO, two runs at a time
    python benchmarks/returns.py --algo trpo                        # another algorithm
    python benchmarks/returns.py --envs hopper --seeds 0 1 2        # a part of it
    python benchmarks/returns.py --name gamma --envs swimmer algo.gamma=0.999
    python benchmarks/returns.py --summarize-only                   # tables from what is there
    python benchmarks/returns.py --verify                           # is every table still true?
    python benchmarks/returns.py --verify 3 --name trpo --envs hopper

Every run is a process of its own, ``rlrun algo=… env=… seed=…``, in outputs/returns/<name>/. The
same command again goes on where it was stopped: finished runs are kept, killed ones resumed. The
JSON, table and figure are written anew after each run, from all finished runs of that name.

Protocol: the figure of a run is the mean of its evaluations (greedy policy, frozen normalisers,
environments of their own) in the last 10 % of its steps; the figure of a method is the mean and the
interquartile mean over seeds, with stratified-bootstrap 95 % intervals from 3 seeds on. Tables are
of `SEEDS`; a setting is never chosen on them, but on seeds from 100 on (``--seeds 100 101 102``
under another ``--name``).

``--verify N`` trains the first seed of each row of the tables again, up to its first N evaluations,
and says whether this commit still computes what the tables have (`returns_verify.py`).
"""

import argparse
import signal
import sys
from pathlib import Path

from jobs import Job, make_job, run_all
from published import budget, budgets, environments
from returns_report import retable, write_report
from returns_verify import verify

# Not 0 to 4, with which some values were chosen before there was this rule.
SEEDS = [10, 11, 12, 13, 14]


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
        root: directory of the runs, from the repository's root; its name is the benchmark's.
        algo: choice of rlrun's group ``algo``.
        envs: choices of its group ``env``, the most important first.
        seeds: seeds for each of them.
        total_steps: environment steps of every run; None: the method's for each environment.
        overrides: more settings for every run.
    """
    jobs = []
    for env in envs:
        steps = total_steps or budget(root.name, algo, env)
        for seed in seeds:
            settings = [f"algo={algo}", f"env={env}", f"seed={seed}", f"total_steps={steps}"]
            jobs.append(make_job(root / f"{env}_s{seed}", settings, overrides))
    return jobs


def say_whether_still_true(paths: list[Path], arguments: argparse.Namespace) -> bool:
    """Print whether this commit still computes each row; return whether it computes all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    all_same = True
    answers = verify(
        paths, envs=arguments.envs, evaluations=arguments.verify, parallel=arguments.jobs
    )
    for answer in answers:
        print(answer, flush=True)
        all_same &= answer.same
    return all_same


def main() -> None:
    """Run the benchmark; exit with 1 if one of its runs failed."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Words of the form name=value are settings for every run, as for rlrun.",
    )
    parser.add_argument("--algo", default="ppo", help="(default ppo)")
    parser.add_argument("--name", help="of this benchmark (default: the algorithm)")
    parser.add_argument("--envs", nargs="+", help="(default: those with published figures)")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="(default 10 to 14)")
    parser.add_argument("--total-steps", type=int, help="of a run (default: the method's)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--summarize-only", action="store_true", help="train nothing")
    parser.add_argument(
        "--retable",
        action="store_true",
        help="the same from the tables' own JSON",
    )
    parser.add_argument(
        "--verify",
        nargs="?",
        type=int,
        const=1,
        metavar="N",
        help="replay the first N (1) evaluations of each row of all tables, or of --name",
    )
    # A setting after `--envs a b` is no environment.
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("--")]
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    if arguments.verify is not None or arguments.retable:
        paths = sorted(arguments.output.glob(f"returns_{arguments.name or '*'}.json"))
        if not paths:
            parser.error(f"no returns_{arguments.name or '*'}.json in {arguments.output}")
        if arguments.retable:
            print(*map(retable, paths), sep="\n\n")
            sys.exit()
        sys.exit(not say_whether_still_true(paths, arguments))
    name = arguments.name or arguments.algo
    envs = arguments.envs or environments(name, arguments.algo)
    unknown = set(envs) - set(budgets())
    if unknown and arguments.total_steps is None:
        parser.error(f"no budget for {', '.join(sorted(unknown))}: give --total-steps")

    root = Path("outputs", "returns", name)
    report = arguments.output / f"returns_{name}"
    failures = []
    if not arguments.summarize_only:
        jobs = make_jobs(
            root,
            algo=arguments.algo,
            envs=envs,
            seeds=arguments.seeds,
            total_steps=arguments.total_steps,
            overrides=overrides,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            failures = run_all(
                jobs, parallel=arguments.jobs, finished=lambda job: write_report(root, report)
            )
        except KeyboardInterrupt:
            sys.exit(130)
    print(write_report(root, report))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
