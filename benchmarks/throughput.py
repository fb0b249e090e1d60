"""Compares the speed of an algorithm in rlrun with that in other libraries on this machine.

    python benchmarks/throughput.py --peer-python peers/bin/python      # PPO: rlrun, peers in turn
    python benchmarks/throughput.py --algo trpo --peer-python peers/bin/python
    python benchmarks/throughput.py --algo a2c --peer-python peers/bin/python
    python benchmarks/throughput.py --env cartpole --peer-python peers/bin/python
    python benchmarks/throughput.py --algo sac --peer-python peers/bin/python   # td3, ddpg, dqn
    python benchmarks/throughput.py --profile                           # where rlrun's time goes

All train with the same settings, which stand in `peers.py`: batch, epochs, minibatches, iterations
of conjugate gradients, two 64-64 tanh networks (with a replay buffer: 256-256 rectified units,
batches of 256, one update a step). They run one process at a time, for several rounds in
alternating order; a ratio is taken within a round. Start-up, compilation and the first iteration do
not count. rlrun is measured as a user runs it, with evaluation, checkpoints, curves and logging,
and also without evaluation; the peers neither evaluate nor normalise, and get the number of torch
threads that suits them best. The peers have one environment, as many as rlrun, and for PPO 8, which
is usual there. rlrun's time to compile stands in a column of its own: in the first round, with an
empty cache, and in the median of the others, which find there what it wrote.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measure import (
    ENV_IDS,
    HERE,
    MODULES,
    NUM_ENVS,
    Measurement,
    describe_machine,
    measure_peer,
    measure_rlrun,
    run_process,
    settings,
    split_time,
)
from peers import OFF_POLICY, STEPS_BEFORE, STEPS_PER_ITERATION

from rlrun.hardware.cpu import available_cores, has_bfloat16_products
from rlrun.loggers.jsonl import read_metrics

PEER_NUM_ENVS = {
    "ppo": (1, 8, NUM_ENVS),
    "trpo": (1, NUM_ENVS),
    "a2c": (1, NUM_ENVS),
    **dict.fromkeys(OFF_POLICY, (1,)),
}
CALIBRATION_STEPS = 4096  # to choose a peer's number of threads
MANY_STEPS = 100_000
FEW_STEPS = 10_000  # to time a method with an update at each of them
MEMORY_STEPS = (20_000, 200_000)  # lengths of the runs whose memory is compared


def find_peers(python: str, modules: Mapping[str, str]) -> list[str]:
    """Return the peers whose modules the interpreter can import; say which it cannot."""
    found = []
    for peer, module in modules.items():
        command = [python, "-c", f"import {module}"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            found.append(peer)
        else:
            print(f"{peer}: left out, {python} cannot import {module}", file=sys.stderr)
    return found


def compare(contenders: dict[str, Callable[[], Measurement]], rounds: int) -> list[dict]:
    """Measure every contender once a round, forwards and backwards in turn, against drift."""
    results = []
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        results.append({name: contenders[name]() for name in names})
        speeds = (f"{name} {results[-1][name]['steps_per_s']:,.0f}" for name in contenders)
        print(f"round {number + 1}, steps/s: {', '.join(speeds)}", flush=True)
    return results


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def summarize(rounds: list[dict[str, Measurement]]) -> dict[str, Any]:
    """Return every contender's speed over the rounds, and rlrun's speed as multiples of it."""
    summary = {}
    for name in rounds[0]:
        own = [each[name]["steps_per_s"] for each in rounds]
        summary[name] = {
            "steps_per_s": spread(own),
            "rlrun_is_times": spread(
                [
                    each["rlrun"]["steps_per_s"] / speed
                    for each, speed in zip(rounds, own, strict=True)
                ]
            ),
            "return": statistics.median(each[name]["return"] for each in rounds),
            "peak_mib": max(each[name]["peak_mib"] for each in rounds),
            "compile_s": compile_times([each[name].get("compile_s") for each in rounds]),
        }
    return summary


def compile_times(seconds: Sequence[float | None]) -> dict[str, float] | None:
    """Return the seconds of the first round and the median of the others; None: no compiler."""
    known = [each for each in seconds if each is not None]
    if len(known) < len(seconds):
        return None
    first, *others = known
    return {"first": first, **({"later": statistics.median(others)} if others else {})}


def make_table(summary: dict[str, Any], rounds: int) -> str:
    """Return the Markdown table of `summarize`, and of how many rounds it is."""
    lines = [
        "| | steps/s (lowest to highest) | rlrun is × | compiling, s | return | peak MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in summary.items():
        speed, ratio, seconds = row["steps_per_s"], row["rlrun_is_times"], row["compile_s"]
        compiling = ""
        if seconds is not None:
            compiling = f"{seconds['first']:.0f}"
            if "later" in seconds:
                compiling += f", then {seconds['later']:.0f}"
        lines.append(
            f"| {name} "
            f"| {speed['median']:,.0f} ({speed['lowest']:,.0f} to {speed['highest']:,.0f}) "
            f"| {ratio['median']:.1f} ({ratio['lowest']:.1f} to {ratio['highest']:.1f}) "
            f"| {compiling} | {row['return']:.0f} | {row['peak_mib']:.0f} |"
        )
    plural = "s" if rounds > 1 else ""
    lines += ["", f"Medians of {rounds} round{plural}; ratios within a round."]
    return "\n".join(lines)


def profile(algo: str, env: str, directory: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Measure where rlrun's time goes, and that its memory does not grow with the steps."""
    runs = {
        steps: measure_rlrun(
            algo,
            env,
            directory / str(steps),
            total_steps=steps,
            evaluate=True,
            overrides=overrides,
            cache=directory / "compiled",
        )
        for steps in MEMORY_STEPS
    }
    longest = directory / str(max(MEMORY_STEPS))
    parts = run_process([sys.executable, str(HERE / "breakdown.py"), str(longest)])
    return {
        "run": runs[max(MEMORY_STEPS)],
        "us_per_step": split_time(read_metrics(longest / "metrics.jsonl")),
        "parts": json.loads(parts.output.splitlines()[-1]),
        "peak_mib": {steps: run["peak_mib"] for steps, run in runs.items()},
    }


def make_profile_table(result: dict[str, Any]) -> str:
    """Return the Markdown tables of `profile`."""
    parts = result["parts"]
    lines = ["| whole run | µs per environment step |", "|---|--:|"]
    lines += [f"| {name} | {us:.1f} |" for name, us in result["us_per_step"].items()]
    lines += ["", "| part of an iteration | µs per environment step |", "|---|--:|"]
    lines += [f"| {name} | {us:.1f} |" for name, us in parts["us_per_step"].items()]
    peaks = (f"{mib:.0f} MiB in {steps:,} steps" for steps, mib in result["peak_mib"].items())
    lines += [
        "",
        f"One minibatch update takes {parts['us_per_minibatch']:.0f} µs; an evaluation of "
        f"{parts['evaluation_episodes']} episodes of {parts['evaluation_length']:.0f} steps takes "
        f"{parts['evaluation_s']:.2f} s; {result['run']['compile_s']:.0f} s to compile.",
        f"Peak memory: {', '.join(peaks)}.",
    ]
    return "\n".join(lines)


def make_contenders(
    algo: str,
    env: str,
    *,
    steps: int,
    peers: Sequence[str],
    python: str,
    scratch: Path,
    overrides: Sequence[str],
) -> dict[str, Callable[[], Measurement]]:
    """Return for each line of the table a function that measures it once."""

    def rlrun(evaluate: bool, words: Sequence[str] = ()) -> Measurement:
        return measure_rlrun(
            algo,
            env,
            Path(tempfile.mkdtemp(dir=scratch), "run"),
            total_steps=STEPS_PER_ITERATION.get(algo, STEPS_BEFORE) + steps,
            evaluate=evaluate,
            overrides=[*words, *overrides],
            cache=scratch / "compiled",
        )

    contenders: dict[str, Callable[[], Measurement]] = {
        "rlrun": partial(rlrun, evaluate=True),
        "rlrun without evaluation": partial(rlrun, evaluate=False),
    }
    if algo in OFF_POLICY and has_bfloat16_products():  # wide networks
        contenders["rlrun in bfloat16"] = partial(
            rlrun, evaluate=True, words=["hardware.products=medium"]
        )
    for peer in peers:
        for num_envs in PEER_NUM_ENVS[algo]:
            run = partial(measure_peer, python, algo, peer, env, num_envs=num_envs)
            speeds = {
                threads: run(steps=min(CALIBRATION_STEPS, steps), threads=threads)["steps_per_s"]
                for threads in sorted({1, available_cores()})
            }
            best = max(speeds, key=lambda threads: speeds[threads])
            name = f"{peer.upper()}, {num_envs} environment{'s' if num_envs > 1 else ''}"
            tried = ", ".join(f"{threads}: {speed:,.0f}" for threads, speed in speeds.items())
            print(f"{name}: {best} of torch's threads (steps/s with {tried})", flush=True)
            contenders[name] = partial(run, steps=steps, threads=best)
    return contenders


def main() -> None:
    """Measure, print the table, and write it and a JSON with every round."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Words of the form name=value are settings for rlrun.",
    )
    parser.add_argument("--algo", choices=MODULES, default="ppo")
    parser.add_argument("--env", choices=ENV_IDS, default="hopper")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed in each process (default 100,000; 10,000)")
    parser.add_argument("--peers", nargs="*", help="of the algorithm's (default: all)")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument("--profile", action="store_true", help="PPO in rlrun: where its time goes")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("--")]
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the process being measured, too
    algo, env = arguments.algo, arguments.env
    steps = arguments.steps or (FEW_STEPS if algo in OFF_POLICY else MANY_STEPS)
    modules = MODULES[algo]
    if arguments.peers is not None:
        if unknown := set(arguments.peers) - set(modules):
            parser.error(f"{algo} has no peer {', '.join(sorted(unknown))}: {', '.join(modules)}")
        modules = {peer: module for peer, module in modules.items() if peer in arguments.peers}
    report: dict[str, Any] = {"algo": algo, "env_id": ENV_IDS[env], "overrides": overrides}
    report["settings"] = settings(algo)
    report["machine"] = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.profile:
            path = arguments.output / f"profile_{algo}_{env}"
            report |= profile(algo, env, Path(scratch), overrides)
            table = make_profile_table(report)
        else:
            path = arguments.output / f"throughput_{algo}_{env}"
            contenders = make_contenders(
                algo,
                env,
                steps=steps,
                peers=find_peers(arguments.peer_python, modules),
                python=arguments.peer_python,
                scratch=Path(scratch),
                overrides=overrides,
            )
            rounds = compare(contenders, arguments.rounds)
            summary = summarize(rounds)
            report |= {"steps": steps, "summary": summary, "rounds": rounds}
            table = make_table(summary, len(rounds))
    print(table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".md").write_text(table + "\n")


if __name__ == "__main__":
    main()
