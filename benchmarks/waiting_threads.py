"""Times updates whose threads wait in different ways, alone and beside another process.

    python benchmarks/waiting_threads.py

Each operation of an update is shared by two threads of OpenMP (GNU's libgomp), which wait for each
other many thousand times a second. They spin for a while before they sleep: a thread that sleeps
takes long to wake up, and one that spins holds a core that another process, or the very thread it
waits for, may need. `GOMP_SPINCOUNT` says for how long. Beside a busy process no count is as fast
as one thread, so rlrun leaves it alone, and tells who has asked for more threads than are free.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import HERE, describe_machine, run_process

from rlrun.loggers.jsonl import read_metrics

UPDATES, WARMUP = 2_000, 500
# Threads, and counts for two of them; libgomp's own is 300,000.
SETTINGS = ((1, "300000"), (2, "300000"), (2, "30000"), (2, "3000"), (2, "300"), (2, "0"))
REPORT = HERE / "results" / "waiting_threads.json"


def milliseconds(threads: int, count: str) -> float:
    """Return how long one compiled update of SAC on Hopper takes."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory, "run")
        command = (
            *(sys.executable, "-m", "rlrun", "algo=sac", "env=hopper", "~tuned", "logger=none"),
            *(f"total_steps={WARMUP + UPDATES}", f"algo.replay.warmup_steps={WARMUP}"),
            *("evaluation.episodes=1", "evaluation.every_steps=100000", f"run_dir={run}"),
            *("hardware.compile=on", f"hardware.threads={threads}"),
            f"hardware.learner_threads={threads}",
        )
        run_process(command, {"GOMP_SPINCOUNT": count})
        rows = read_metrics(run / "metrics.jsonl")
        return 1e3 * sum(row.get("time/update_s", 0.0) for row in rows) / UPDATES


def main() -> None:
    """Time all of them in turn, for some rounds, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    for threads in (1, 2):
        milliseconds(threads, "300000")  # compiles
    results = []
    for beside in ("nothing", "one busy process"):
        times: dict[tuple[int, str], list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(rounds):
            for setting, measured in times.items():
                if beside == "nothing":
                    measured.append(milliseconds(*setting))
                    continue
                with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
                    try:
                        measured.append(milliseconds(*setting))
                    finally:
                        busy.kill()
        for (threads, count), measured in times.items():
            words = ", ".join(f"{time:.2f}" for time in measured)
            print(
                f"beside {beside}, {threads} thread{'s' * (threads > 1)}, GOMP_SPINCOUNT={count}: "
                f"{statistics.median(measured):.2f} ms an update ({words})",
                flush=True,
            )
            results.append(
                {"beside": beside, "threads": threads, "spin_count": count, "ms": measured}
            )
    content = {"machine": describe_machine(), "updates": UPDATES, "rows": results}
    REPORT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
