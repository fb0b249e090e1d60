"""A sweep of two algorithms, two tasks and five seeds, killed in its middle, to its report.

    python benchmarks/killed_sweep.py

Every process of the sweep gets `kill -9` as soon as half of the runs have finished; the same words
again go on with it. Checked is that nothing that had finished is trained again or changed; written
are what the terminal said, which runs went on from a checkpoint, and the report.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

WORDS = ["algo=ppo,a2c", "env=cartpole,acrobot", "seed=0,1,2,3,4"]
RUNS = 20


def records(sweep: Path) -> dict[str, dict]:
    """Return what each run says of itself, by the name of its directory."""
    paths = sorted(sweep.glob("*/run.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def training(record: dict) -> bool:
    """Tell whether a run says that it is being trained."""
    return record["status"] == "running"


def finished(sweep: Path) -> dict[str, bytes]:
    """Return the files of metrics of the runs that have finished, by name."""
    return {
        name: (sweep / name / "metrics.jsonl").read_bytes()
        for name, record in records(sweep).items()
        if record["status"] == "finished"
    }


def kill_in_the_middle(
    command: list[str], sweep: Path, *, after: int, log: Path
) -> dict[str, bytes]:
    """Start the sweep, and kill all of its processes when some of its runs have finished.

    Args:
        command: the sweep's.
        sweep: its directory.
        after: finished runs.
        log: takes what it prints.

    Returns:
        The metrics of the runs that had finished.
    """
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        while len(finished(sweep)) < after:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        runs = [record["pid"] for record in records(sweep).values() if training(record)]
        os.killpg(process.pid, signal.SIGKILL)
        for pid in runs:  # which are in sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    return finished(sweep)


def main() -> None:
    """Run it, check it, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="of each run")
    parser.add_argument("--after", type=int, default=RUNS // 2, help="finished runs at the kill")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sweep"))
    arguments = parser.parse_args()
    sweep = Path("outputs/sweeps/killed")
    if sweep.exists():
        shutil.rmtree(sweep)
    arguments.output.mkdir(parents=True, exist_ok=True)
    words = ["-m", *WORDS, f"total_steps={arguments.steps}", f"hydra.sweep.dir={sweep}"]
    command = [sys.executable, "-m", "rlrun", *words]

    first = arguments.output / "killed.log"
    before = kill_in_the_middle(command, sweep, after=arguments.after, log=first)
    there = records(sweep)
    cut = [name for name, record in there.items() if training(record)]
    began = time.time()
    with (arguments.output / "again.log").open("w") as file:
        subprocess.run(command, stdout=file, stderr=file, check=True)
    after = finished(sweep)
    assert len(after) == RUNS
    assert before.items() <= after.items(), "a finished run was trained again"
    resumed = [name for name in cut if records(sweep)[name].get("earlier")]
    report = ["compare", str(sweep), "--output", str(arguments.output)]
    table = subprocess.run(
        [sys.executable, "-m", "rlrun", *report], check=True, capture_output=True, text=True
    )
    facts = {
        "command": "rlrun " + " ".join(words),
        "commit": next(iter(there.values()))["git_commit"],
        "finished_at_the_kill": len(before),
        "in_training_at_the_kill": cut,
        "of_these_went_on_from_a_checkpoint": resumed,
        "minutes_of_the_second_start": round((time.time() - began) / 60, 1),
    }
    (arguments.output / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2), table.stdout, sep="\n")


if __name__ == "__main__":
    main()
