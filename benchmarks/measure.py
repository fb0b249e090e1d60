"""Measurements of one training process each, for `throughput.py`."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from peers import (
    A2C,
    HIDDEN_SIZES,
    OFF_POLICY,
    PPO,
    REPLAY,
    STEPS_BEFORE,
    STEPS_PER_ITERATION,
    TRPO,
    WIDE,
)

from rlrun.hardware.cpu import available_cores, processor
from rlrun.loggers.jsonl import read_metrics

HERE = Path(__file__).parent
ENV_IDS = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "cartpole": "CartPole-v1"}
# By algorithm: its peers, and the modules that they are in.
MODULES = {
    "ppo": {"sb3": "stable_baselines3", "sbx": "sbx"},
    "trpo": {"sb3-contrib": "sb3_contrib"},
    "a2c": {"sb3": "stable_baselines3"},
    **{algo: {"sb3": "stable_baselines3", "sbx": "sbx"} for algo in OFF_POLICY},
}
NUM_ENVS = 16
# What the peers are given, in rlrun's words.
SETTINGS = {
    "ppo": (
        f"algo.epochs={PPO['n_epochs']}",
        f"algo.minibatch_size={PPO['batch_size']}",
    ),
    "trpo": (
        f"algo.trust_region.cg_iterations={TRPO['cg_max_steps']}",
        f"algo.trust_region.line_search_steps={TRPO['line_search_max_iter']}",
        f"algo.critic.epochs={TRPO['n_critic_updates']}",
        f"algo.critic.minibatch_size={TRPO['batch_size']}",
    ),
    "a2c": (f"algo.entropy_coefficient={A2C['ent_coef']}",),
    **dict.fromkeys(OFF_POLICY, ()),
    "dqn": ("algo.double=false",),
}


def settings(algo: str) -> tuple[str, ...]:
    """Return the words of rlrun's command line that make it do the peers' work.

    Without the values that suit one environment (`~tuned`), which the peers do not get either.
    """
    if algo in OFF_POLICY:
        return (
            f"algo={algo}",
            "~tuned",
            "algo.num_envs=1",
            f"algo.replay.batch_size={REPLAY['batch_size']}",
            f"algo.replay.capacity={REPLAY['buffer_size']}",
            f"algo.replay.warmup_steps={STEPS_BEFORE // 2}",
            "algo.replay.updates_per_step=1",
            f"log_every_steps={STEPS_BEFORE}",
            f"model.hidden_sizes={WIDE}".replace(" ", ""),
            *SETTINGS[algo],
        )
    return (
        f"algo={algo}",
        "~tuned",
        f"algo.num_envs={NUM_ENVS}",
        f"algo.horizon={STEPS_PER_ITERATION[algo] // NUM_ENVS}",
        f"model.hidden_sizes={HIDDEN_SIZES}".replace(" ", ""),
        *SETTINGS[algo],
    )


Measurement = dict[str, Any]


class Finished(NamedTuple):
    """What is left of a process: its output, and its largest resident memory in MiB."""

    output: str
    peak_mib: float


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end.

    Args:
        command: its words.
        environment: variables that it gets besides those of this process.

    Raises:
        RuntimeError: it failed; the message has the end of what it printed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        peak = 0.0
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        ) as process:
            try:
                while process.poll() is None:
                    peak = max(peak, peak_memory(process.pid))
                    time.sleep(0.1)
            finally:
                process.kill()
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {errors.read()[-2000:]}")
        return Finished(output.read(), peak)


def peak_memory(pid: int) -> float:
    """Return the largest resident memory that a process has had, in MiB; 0 when it is gone.

    Not from `getrusage`, which counts the C++ compiler that rlrun calls too.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure_rlrun(
    algo: str,
    env: str,
    directory: Path,
    *,
    total_steps: int,
    evaluate: bool,
    overrides: Sequence[str],
    cache: Path,
) -> Measurement:
    """Train with rlrun in a new directory and read its speed from the run's own clock.

    Args:
        algo: choice of rlrun's group ``algo``.
        env: choice of its group ``env``.
        directory: of the run, which will be made.
        total_steps: environment steps.
        evaluate: whether the policy is evaluated meanwhile.
        overrides: settings that win over all others.
        cache: directory of compiled code, empty or from an earlier run.
    """
    words = [*settings(algo), f"env={env}", f"total_steps={total_steps}", f"run_dir={directory}"]
    words += ["logger=none", "hardware.compile=on", *overrides]
    if not evaluate:
        words.append(f"evaluation.every_steps={10**12}")
    command = [str(Path(sys.executable).with_name("rlrun")), *words]
    finished = run_process(command, {"TORCHINDUCTOR_CACHE_DIR": str(cache)})
    rows = read_metrics(directory / "metrics.jsonl")
    record = json.loads((directory / "run.json").read_text())
    return {
        "steps_per_s": 1e6 / sum(split_time(rows).values()),
        "return": recent_return(rows, episodes=100),
        "compile_s": record["compile_s"],
        "peak_mib": finished.peak_mib,
        "git_commit": record["git_commit"],
    }


def split_time(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return where the time of a run went, in µs per environment step.

    From the end of the first iteration to that of the last one; an evaluation after the last one
    is not in it, so that each that is brings its checkpoint and curves with it.

    Args:
        rows: of ``metrics.jsonl``, of two iterations or more.
    """
    first, *iterations = (row for row in rows if "time/collect_s" in row)
    last = iterations[-1]
    seconds = {
        "collect": sum(row["time/collect_s"] for row in iterations),
        "update": sum(row["time/update_s"] for row in iterations),
        "evaluate": sum(
            row["time/evaluate_s"]
            for row in rows
            if "time/evaluate_s" in row and row["step"] < last["step"]
        ),
    }
    rest = last["time_s"] - first["time_s"] - sum(seconds.values())
    seconds["rest: logging, checkpoints, curves"] = rest
    steps = last["step"] - first["step"]
    return {name: value / steps * 1e6 for name, value in seconds.items()}


def recent_return(rows: list[dict[str, float]], *, episodes: int) -> float:
    """Return the mean training return of the last iterations with that many episodes, or of all."""
    total, count = 0.0, 0.0
    for row in reversed([row for row in rows if "train/return" in row]):
        total += row["train/return"] * row["train/episodes"]
        count += row["train/episodes"]
        if count >= episodes:
            break
    return total / count


def measure_peer(
    python: str, algo: str, peer: str, env: str, *, num_envs: int, steps: int, threads: int
) -> Measurement:
    """Train with another library, in its own interpreter."""
    command = [python, str(HERE / "peers.py"), algo, MODULES[algo][peer], ENV_IDS[env]]
    for option, value in (("num-envs", num_envs), ("steps", steps), ("threads", threads)):
        command += [f"--{option}", str(value)]
    finished = run_process(command)
    result = json.loads(finished.output.splitlines()[-1])
    return {**result, "threads": threads, "peak_mib": finished.peak_mib}


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    return {
        "cpu": processor(),
        "cores": available_cores(),
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "mujoco", "gymnasium", "numpy")},
        "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
    }
