"""Learning curves beside Stable-Baselines3's: the same settings, the same seeds.

    python benchmarks/sample_efficiency.py --peer-python peers/bin/python
    python benchmarks/sample_efficiency.py --algos sac --envs hopper --seeds 10 11 12
    python benchmarks/sample_efficiency.py --summarize-only

Every run is a process of its own with one thread, two at a time, in outputs/sample_efficiency/. The
same command again goes on where it was stopped: rlrun's runs are resumed, the peer's that were not
finished begin again. Written are a JSON with every evaluation, a table and a picture of both.
The figure of a run is the mean of its evaluations in the last tenth of the steps.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jobs import is_finished, make_job, run_all
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from measure import ENV_IDS, HERE, describe_machine

from rlrun.analysis.reports.tables import show
from rlrun.analysis.statistics import MIN_SEEDS, bootstrap_interval, mean
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs.figures import final_return

ROOT = Path("outputs", "sample_efficiency")
# Steps, and random ones before the first update: fewer than usual, in so few steps.
STEPS, WARMUP, EVERY = 100_000, 10_000, 5_000
IDS = {**ENV_IDS, "inverted_double_pendulum": "InvertedDoublePendulum-v5"}
Curve = list[tuple[int, float]]


def words(algo: str, env: str, seed: int, steps: int) -> list[str]:
    """Return rlrun's words for a run."""
    return [
        f"algo={algo}",
        f"env={env}",
        "~tuned",  # the algorithm's own values
        f"seed={seed}",
        f"total_steps={steps}",
        f"algo.replay.warmup_steps={WARMUP}",
        f"evaluation.every_steps={EVERY}",
        "hardware.learner_threads=1",
    ]


def peer_curve(path: Path, python: str, algo: str, env: str, seed: int, steps: int) -> None:
    """Have the peer train, unless it has done so, with the settings of rlrun's run beside it."""
    if path.exists():
        return
    run = ROOT / f"{algo}_{env}_s{seed}"
    settings = path.with_suffix(".settings")
    config = yaml.safe_load((run / "config.yaml").read_text())
    settings.write_text(json.dumps(config["algo"]))
    command = [python, str(HERE / "peer_curves.py"), algo, IDS[env], str(settings)]
    command += ["--seed", str(seed), "--steps", str(steps), "--every", str(EVERY)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(finished.stderr[-2000:])
    rows = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    path.write_text(json.dumps([(row["step"], row["return"]) for row in rows]))
    print(f"{path.stem}: finished", flush=True)


def own_curve(run: Path) -> Curve:
    """Return the evaluations of one of rlrun's runs."""
    rows = read_metrics(run / "metrics.jsonl")
    return [(int(row["step"]), row["eval/return"]) for row in rows if "eval/return" in row]


def collect(algos: list[str], envs: list[str], seeds: list[int], steps: int) -> dict[str, Any]:
    """Return the finished curves: algorithm and environment -> library -> seed -> evaluations."""
    found: dict[str, Any] = {}
    for algo in algos:
        for env in envs:
            curves: dict[str, dict[int, Curve]] = {"rlrun": {}, "sb3": {}}
            for seed in seeds:
                run = ROOT / f"{algo}_{env}_s{seed}"
                record, peer = run / "run.json", ROOT / f"{run.name}_sb3.json"
                if record.exists() and is_finished(record):
                    curves["rlrun"][seed] = own_curve(run)
                if peer.exists():
                    curves["sb3"][seed] = json.loads(peer.read_text())
            if all(curves.values()):
                found[f"{algo}_{env}"] = curves
    return found


def summary(curves: dict[int, Curve], steps: int) -> str:
    """Write mean, standard deviation and interval of the runs' figures."""
    figures = np.array([final_return(curve, steps) for curve in curves.values()])
    text = f"{show(figures.mean())} ± {show(figures.std(ddof=min(1, len(figures) - 1)))}"
    if len(figures) >= MIN_SEEDS:
        low, high = map(float, bootstrap_interval(mean, [figures]))
        text += f" [{show(low)}, {show(high)}]"
    return f"{text} (n = {len(figures)})"


def commits_of(name: str, seeds: Iterable[int]) -> list[str]:
    """Return the commits of rlrun that the runs of a row are of."""
    records = [json.loads((ROOT / f"{name}_s{seed}" / "run.json").read_text()) for seed in seeds]
    return sorted({record["git_commit"][:7] for record in records})


def report(found: dict[str, Any], steps: int, output: Path) -> str:
    """Write JSON, table and picture; return the table."""
    lines = [f"| after {steps:,} steps | rlrun | Stable-Baselines3 | commit |", "|---|--:|--:|---|"]
    commits = {name: commits_of(name, curves["rlrun"]) for name, curves in found.items()}
    for name, curves in found.items():
        both = (summary(curves[library], steps) for library in ("rlrun", "sb3"))
        lines.append(f"| {name} | {' | '.join(both)} | {', '.join(commits[name])} |")
    table = "\n".join(lines)
    content = {
        "steps": steps,
        "machine": describe_machine(),
        "commits": commits,
        "curves": found,
    }
    output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    output.with_suffix(".md").write_text(table + "\n")
    if found:
        columns = min(3, len(found))
        rows = -(-len(found) // columns)
        figure = Figure(figsize=(4 * columns, 3 * rows), dpi=100, layout="constrained")
        panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axes, (name, curves) in zip(panels, found.items(), strict=False):
            for library, color in (("rlrun", "#08519c"), ("sb3", "#d94801")):
                for number, curve in enumerate(curves[library].values()):
                    axes.plot(*zip(*curve, strict=True), color=color, alpha=0.35, linewidth=1)
                    if number == 0:
                        axes.plot([], [], color=color, label=library)
                shared = np.array(
                    [[value for step, value in c if step] for c in curves[library].values()]
                )
                at = [step for step, _ in next(iter(curves[library].values())) if step]
                axes.plot(at, shared.mean(0), color=color, linewidth=2)
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("environment steps", fontsize=8)
            axes.set_ylabel("evaluation return", fontsize=8)
            axes.tick_params(labelsize=8)
            axes.legend(frameon=False, fontsize=8)
        FigureCanvasAgg(figure).print_png(str(output.with_suffix(".png")))
    return table


def main() -> None:
    """Train what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algos", nargs="+", default=["sac", "td3", "ddpg"])
    parser.add_argument(
        "--envs", nargs="+", default=["hopper", "halfcheetah", "inverted_double_pendulum"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the peer")
    parser.add_argument("--summarize-only", action="store_true", help="train nothing")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    algos, envs, seeds = arguments.algos, arguments.envs, arguments.seeds
    failures: list[str] = []
    if not arguments.summarize_only:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        points = [(algo, env, seed) for algo in algos for env in envs for seed in seeds]
        jobs = [
            make_job(
                ROOT / "_".join([algo, env, f"s{seed}"]), words(algo, env, seed, arguments.steps)
            )
            for algo, env, seed in points
        ]
        failures = run_all(jobs, parallel=arguments.jobs)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            futures = {}
            for algo, env, seed in points:
                path = ROOT / f"{algo}_{env}_s{seed}_sb3.json"
                call = (path, arguments.peer_python, algo, env, seed, arguments.steps)
                futures[path.stem] = pool.submit(peer_curve, *call)
        failures += [
            f"{name}: {future.exception()}"
            for name, future in futures.items()
            if future.exception() is not None
        ]
    found = collect(algos, envs, seeds, arguments.steps)
    print(report(found, arguments.steps, arguments.output / "sample_efficiency"))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
