r"""Checks every algorithm on a GPU, and times it beside this machine's CPU.

    python benchmarks/gpu.py                                     # all, eagerly
    python benchmarks/gpu.py --compile on --algos ppo trpo
    python benchmarks/gpu.py --device cpu --algos ppo            # the same checks without a GPU

Of each algorithm with networks, with ``env=hopper`` (DQN: ``env=cartpole``):

- **first update**: a run on the device and one on the CPU, from the same seed. Actions are drawn
  and physics is computed on the CPU, so that both learn from the same rollout; what the first
  iteration logs, and the weights after it, have to agree to `TOLERANCE`.
- **resume**: the run on the device goes on from one of its earlier checkpoints and has to end with
  the weights that it ended with, to the same tolerance; whether bit for bit is written down.
- **steps/s** with the algorithm's own settings, from the end of the first iteration on, evaluations
  left out; and of the CPU.

Writes ``results/gpu_<machine>.json``; what is there of other algorithms, or of the other setting of
``--compile``, stays. Exit code 1: a check failed; 2: there is no such device here.

On a machine without a network that has torch with CUDA and Python 3.12, but not rlrun's other
dependencies, carry them as wheels (43 MB), made once in the repository's root:

    echo /.whl/ >>.git/info/exclude
    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux2014_x86_64 -d .whl gymnasium==1.4.0 mujoco==4.0.0 \
        mujoco-core==4.0.0 mujoco-studio==4.0.0 hydra-core==1.3.8 omegaconf==2.3.1 \
        wandb==0.31.0 farama-notifications glfw annotated-types
    python -m pip wheel --no-deps -w .whl antlr4-python3-runtime==4.9.3

and there, with ``.whl`` carried along and ``$OUT`` the folder that comes back:

    python3 -m pip install -q --no-index --no-deps --target /tmp/site .whl/*.whl &&
        PYTHONPATH=/tmp/site:$PWD python3 benchmarks/gpu.py --output $OUT
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from measure import describe_machine, split_time
from omegaconf import OmegaConf

from rlrun import loops
from rlrun.config.files import conf_directory
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs.files.checkpoint import Checkpoint, load
from rlrun.runs.files.disk import CHECKPOINTS

ROOT = Path(__file__).resolve().parents[1]
# Largest difference, relative to the larger of the number and 1.
TOLERANCE = 1e-4
# What an iteration logs of the clock is no part of a comparison.
CLOCKS = ("time", "speed")
# Settings that make an iteration of few updates, as far as an algorithm has them: rounding errors
# grow with every update.
FEW_UPDATES = {
    "epochs": 1,
    "minibatch_size": 1024,
    "critic.epochs": 1,
    "critic.minibatch_size": 1024,
    # Two after each iteration, where there is a replay buffer.
    "replay.updates_per_step": 0.004,
    "replay.warmup_steps": 1000,
}
CHECKED_STEPS = 8_000
TIMED_STEPS = 40_000
COMMON = ("logger=none", "seed=0")
CHECKS = (
    "log_every_steps=1",
    "evaluation.episodes=2",
    "checkpoint.every_seconds=0",
    "checkpoint.keep=1000",
)


def algorithms() -> list[str]:
    """Return the names of all algorithms that a device makes a difference to."""
    names = []
    for path in sorted((conf_directory() / "algo").glob("*.yaml")):
        target = OmegaConf.select(OmegaConf.load(path), "_target_")
        if target is None:
            continue  # other values for another one's code
        algorithm: Any = locate(target)
        if algorithm.loop in (loops.on_policy, loops.off_policy):
            names.append(path.stem)
    return names


def choice(algo: str) -> list[str]:
    """Return the words that choose an algorithm and what it is tried on."""
    return [f"algo={algo}", f"env={'cartpole' if algo == 'dqn' else 'hopper'}"]


def rlrun(*words: str) -> None:
    """Run rlrun with words in a process of its own.

    Raises:
        RuntimeError: it failed; the message is the last line of what it said.
    """
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "rlrun", *words],
        env={**os.environ, "PYTHONPATH": python_path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(f"rlrun {' '.join(words)}: {said}")


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints of a run, the oldest first."""
    return sorted((directory / CHECKPOINTS).glob("step-*"))


def difference(one: float, other: float) -> float:
    """Return how far two numbers are apart, relative to the larger of them and 1."""
    return abs(one - other) / max(abs(one), abs(other), 1.0)


def weights_apart(one: Checkpoint, other: Checkpoint) -> float:
    """Return the largest difference between the weights of two checkpoints."""
    if one.weights.keys() != other.weights.keys():
        return float("inf")
    return max(
        float(((a - b).abs() / a.abs().clamp(min=1.0)).max())
        for a, b in ((w.cpu(), other.weights[name].cpu()) for name, w in one.weights.items())
    )


def first_updates_apart(one: Path, other: Path) -> dict[str, float]:
    """Return the largest differences after the first iteration of two runs: logged, and weights."""
    rows = [read_metrics(directory / "metrics.jsonl") for directory in (one, other)]
    first, second = (
        next(row for row in of_run if any(name.startswith("loss/") for name in row))
        for of_run in rows
    )
    names = {name for name in first.keys() & second.keys() if not name.startswith(CLOCKS)}
    only = first.keys() ^ second.keys()
    logged = max(difference(first[name], second[name]) for name in names)
    after = f"step-{int(first['step']):012d}"
    weights = weights_apart(load(one / CHECKPOINTS / after), load(other / CHECKPOINTS / after))
    return {"logged": float("inf") if only else logged, "weights": weights}


def resume_from_the_middle(run: Path) -> dict[str, Any]:
    """Go on from a copy of a run's middle checkpoint; compare its end with the run's."""
    copy = run.with_name(f"{run.name}_resumed")
    shutil.copytree(run, copy, symlinks=True)
    every = checkpoints(copy)
    for path in every[max(len(every) // 2, 1) :]:
        shutil.rmtree(path)
    record = copy / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "interrupted"}))
    rlrun("resume", str(copy))
    apart = weights_apart(load(checkpoints(run)[-1]), load(checkpoints(copy)[-1]))
    return {"weights": apart, "bit_for_bit": apart == 0.0}


def check(algo: str, *, device: str, compile_: str, scratch: Path) -> dict[str, Any]:
    """Compare an algorithm's first update with the CPU's, and a resumed run with the whole one."""
    known = OmegaConf.load(conf_directory() / "algo" / f"{algo}.yaml")
    few = [
        f"algo.{name}={value}"
        for name, value in FEW_UPDATES.items()
        if OmegaConf.select(known, name) is not None
    ]
    words = [*choice(algo), *COMMON, *CHECKS, *few, f"total_steps={CHECKED_STEPS}"]
    words += ["hardware.threads=1"]
    if "replay" in known:
        words.append("algo.horizon=500")
    on_cpu, on_device = scratch / f"{algo}_cpu", scratch / f"{algo}_device"
    rlrun(*words, "hardware.compile=off", f"run_dir={on_cpu}")
    hardware = [f"hardware.device={device}", f"hardware.compile={compile_}"]
    rlrun(*words, *hardware, f"run_dir={on_device}")
    result: dict[str, Any] = {
        "first_update": first_updates_apart(on_cpu, on_device),
        "resume": resume_from_the_middle(on_device),
    }
    apart = [*result["first_update"].values(), result["resume"]["weights"]]
    return {**result, "passed": all(value <= TOLERANCE for value in apart)}


def steps_per_s(algo: str, *, device: str, compile_: str, directory: Path, steps: int) -> float:
    """Train with the algorithm's own settings and return the speed after the first iteration."""
    words = [*choice(algo), *COMMON, f"total_steps={steps}", "log_every_steps=2000"]
    words += [f"hardware.device={device}", f"hardware.compile={compile_}"]
    rlrun(*words, f"evaluation.every_steps={10**12}", f"run_dir={directory}")
    parts = split_time(read_metrics(directory / "metrics.jsonl"))
    return 1e6 / (parts["collect"] + parts["update"])


def describe_device(device: str) -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    machine = describe_machine()
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return {
        **machine,
        "device": torch.cuda.get_device_name(device) if device != "cpu" else machine["cpu"],
        "cuda": torch.version.cuda,
        "git_commit": commit.stdout.strip() or None,
    }


def measure(
    algos: list[str], *, device: str, compile_: str, steps: int, parallel: int
) -> dict[str, dict[str, Any]]:
    """Check algorithms, several at a time, then time them one by one; say each in a line.

    Args:
        algos: choices of rlrun's group ``algo``.
        device: of rlrun's setting hardware.device.
        compile_: of hardware.compile.
        steps: environment steps of a timed run; 0: none.
        parallel: checks side by side.
    """
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(parallel) as pool:
        scratch = Path(name)
        checks = {
            algo: pool.submit(check, algo, device=device, compile_=compile_, scratch=scratch)
            for algo in algos
        }
        for algo, future in checks.items():
            try:
                results[algo] = future.result()
            except RuntimeError as error:
                results[algo] = {"passed": False, "error": str(error)}
            print(f"{algo}: {'passed' if results[algo]['passed'] else 'FAILED'}", flush=True)
            print(f"    {json.dumps(results[algo])}", flush=True)
        for algo in algos if steps else ():
            speeds = {}
            for where in dict.fromkeys((device, "cpu")):
                directory = scratch / f"{algo}_timed_on_{where.replace(':', '_')}"
                try:
                    speed = steps_per_s(
                        algo, device=where, compile_=compile_, directory=directory, steps=steps
                    )
                    speeds[where] = round(speed)
                except RuntimeError as error:
                    results[algo] |= {"passed": False, "error": str(error)}
            results[algo]["steps_per_s"] = speeds
            print(f"{algo}: steps/s {json.dumps(speeds)}", flush=True)
    return results


def main() -> None:
    """Check, time and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (default cuda)")
    parser.add_argument("--algos", nargs="+", choices=algorithms(), default=algorithms())
    parser.add_argument("--compile", choices=("off", "on"), default="off", help="(default off)")
    parser.add_argument("--steps", type=int, default=TIMED_STEPS, help="of a timed run; 0: none")
    parser.add_argument("--jobs", type=int, default=4, help="checks side by side (default 4)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(
            f"gpu.py: torch {torch.__version__} finds no CUDA device here; --device cpu checks "
            "the CPU against itself",
            file=sys.stderr,
        )
        sys.exit(2)

    facts = describe_device(arguments.device)
    results = measure(
        arguments.algos,
        device=arguments.device,
        compile_=arguments.compile,
        steps=arguments.steps,
        parallel=arguments.jobs,
    )
    machine = re.sub(r"[^a-z0-9]+", "_", facts["device"].lower()).strip("_")
    path = arguments.output / f"gpu_{machine}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    report = json.loads(path.read_text()) if path.exists() else {"algorithms": {}}
    for algo, result in results.items():
        compiled = {"compile": arguments.compile, **facts, "tolerance": TOLERANCE, **result}
        report["algorithms"].setdefault(algo, {})[f"compile={arguments.compile}"] = compiled
    report = {"machine": facts["device"], **report}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(path)
    sys.exit(not all(result["passed"] for result in results.values()))


if __name__ == "__main__":
    main()
