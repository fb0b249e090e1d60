"""Measures how long `rlrun compare` and `rlrun list` take over many runs, and in how much memory.

    python benchmarks/many_runs.py --json benchmarks/results/many_runs.json

One short run is trained. Copies of it, with the lines of its `metrics.jsonl` repeated up to 1 M
steps, stand for runs of 5 tasks, 10 methods (values of `algo.clip`) and as many seeds as are asked
for. Every command is a process of its own. Its CPU seconds count, which other work on the machine
changes less than the time that passes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlrun.hardware.cpu import available_cores, processor

TASKS = ("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "Walker2d-v5")
CLIPS = tuple(round(0.05 * number, 2) for number in range(1, 11))
TOTAL_STEPS, ITERATION, EVALUATIONS = 1_000_000, 2_048, 20
COMMANDS = {
    "compare": ["compare", "."],
    "compare --json": ["compare", ".", "--json"],
    "list": ["list", "."],
    "list --group": ["list", ".", "--group"],
}


def train(directory: Path) -> Path:
    """Train the run that is copied."""
    words = [f"total_steps={4 * ITERATION}", "hardware.compile=off", "hardware.threads=1"]
    words += ["algo=ppo", "env=hopper", "evaluation.episodes=1", "log_every_steps=1"]
    command = [sys.executable, "-m", "rlrun", *words, f"run_dir={directory / 'run'}"]
    subprocess.run(command, check=True, capture_output=True)
    return directory / "run"


def make_runs(run: Path, root: Path, seeds: int) -> int:
    """Write the copies; return the bytes of all their `metrics.jsonl`."""
    record = json.loads((run / "run.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    iterations = [row for row in rows if "eval/return" not in row]
    evaluation = next(row for row in rows if "eval/return" in row)
    random, size = np.random.default_rng(0), 0
    for number in range(len(TASKS) * len(CLIPS) * seeds):
        rest, seed = divmod(number, seeds)
        task, clip = TASKS[rest // len(CLIPS)], CLIPS[rest % len(CLIPS)]
        directory = root / f"run_{number:04d}"
        directory.mkdir(parents=True)
        done = {"env_id": task, "seed": seed, "total_steps": TOTAL_STEPS, "step": TOTAL_STEPS}
        (directory / "run.json").write_text(json.dumps({**record, **done}))
        own = {
            **config,
            "seed": seed,
            "total_steps": TOTAL_STEPS,
            "env": {**config["env"], "id": task},
            "algo": {**config["algo"], "clip": clip},
        }
        (directory / "config.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        (directory / "overrides.yaml").write_text((run / "overrides.yaml").read_text())
        lines, due = [], 0
        for step in [*range(0, TOTAL_STEPS, ITERATION), TOTAL_STEPS]:
            row = iterations[step // ITERATION % len(iterations)]
            lines.append(json.dumps({**row, "step": step, "time_s": step / 5000}))
            if step >= due:
                due += TOTAL_STEPS // EVALUATIONS
                value = 3000 * step / TOTAL_STEPS + 1000 * clip + random.normal(0, 200)
                figures = {"step": step, "time_s": step / 5000, "eval/return": value}
                lines.append(json.dumps({**evaluation, **figures}))
        text = "\n".join(lines) + "\n"
        (directory / "metrics.jsonl").write_text(text)
        size += len(text)
    return size


def measure(words: list[str], directory: Path) -> dict[str, float]:
    """Run a command of rlrun's; return its seconds and its largest memory.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    with (directory.parent / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlrun", *words],
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{words} failed: {(directory.parent / 'output.txt').read_text()}")
    return {
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        "memory_mib": usage.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure every command; print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="of each method on each task")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    runs = len(TASKS) * len(CLIPS) * arguments.seeds
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "runs"
        size = make_runs(train(Path(place)), root, arguments.seeds)
        print(f"{runs} runs of {TOTAL_STEPS:,} steps, {size / 2**20:.0f} MiB of metrics")
        print(f"{'':16} {'user s':>7} {'system s':>9} {'wall s':>7} {'MiB':>6}")
        for name, words in COMMANDS.items():
            results[name] = row = measure(words, root)
            print(
                f"{name:16} {row['user_s']:7.2f} {row['system_s']:9.2f} {row['wall_s']:7.2f} "
                f"{row['memory_mib']:6.0f}",
                flush=True,
            )
    if arguments.json:
        report = {
            "settings": {"runs": runs, "total_steps": TOTAL_STEPS, "metrics_mib": size / 2**20},
            "machine": {
                "host": platform.node(),
                "cpu": processor(),
                "cores": available_cores(),
                "load": os.getloadavg()[0],  # of the minute before
                "python": platform.python_version(),
                "numpy": version("numpy"),
            },
            "commands": results,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
