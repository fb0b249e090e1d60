"""Compares GRPO on a task of language with TRL's GRPOTrainer, on this machine.

    python benchmarks/token_throughput.py --peer-python peers/bin/python

Both copy 14 digits: the same decoder (RMSNorm, rotary positions, SwiGLU, tied embeddings) from
weights that are drawn alike, 64 prompts with 8 responses of at most 16 tokens each, a gradient step
on all of them, the same step size, clip, reward and largest gradient. They run one process at a
time, for several rounds in alternating order; a ratio is taken within a round. Start-up and the
first updates do not count. rlrun is measured as a user runs it, with evaluation, checkpoints and
logging. The rewards stand beside, as a mean of the last tenth of the updates: faster at learning
less would be nothing.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from llama import llama_weights
from measure import HERE, Measurement, describe_machine, run_process
from safetensors.torch import save_file
from throughput import compare, spread
from torch import Tensor

from rlrun.hardware.cpu import available_cores
from rlrun.loggers.jsonl import read_metrics
from rlrun.models.language.caches import DecoderShape
from rlrun.models.language.transformer import Decoder

# Updates at the beginning that do not count.
FIRST = 3

# Tokens that TRL's side has: a letter, digits, "=", the end, and nothing.
VOCABULARY = 14


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What both sides train.

    Attributes:
        layers, width, heads: of the decoder.
        digits: of a prompt.
        prompts: of an update.
        group_size: responses to each.
        updates: gradient steps.
        learning_rate: of Adam.
        max_grad_norm: largest Euclidean norm of a gradient.
        threads: of torch.
        seed: of the first weights, the prompts and the draws.
    """

    layers: int
    width: int
    heads: int
    digits: int = 14
    prompts: int = 64
    group_size: int = 8
    updates: int = 100
    learning_rate: float = 3e-3
    max_grad_norm: float = 0.5
    threads: int = 2
    seed: int = 0

    @property
    def responses(self) -> int:
        """Of an update."""
        return self.prompts * self.group_size


# By millions of parameters.
SIZES = {
    "0.1 M": Setting(layers=2, width=64, heads=4),
    "0.8 M": Setting(layers=4, width=128, heads=4, updates=50),
}


def summarized(seconds: list[float], rewards: list[float], setting: Setting) -> Measurement:
    """Return samples a second, and the reward of the last tenth.

    Args:
        seconds: of each update.
        rewards: mean reward of each.
        setting: what was trained.
    """
    last = rewards[-max(1, len(rewards) // 10) :]
    counted = seconds[FIRST:]
    return {
        "steps_per_s": setting.responses * len(counted) / sum(counted),
        "reward": statistics.mean(last),
    }


def first_weights(setting: Setting) -> dict[str, Tensor]:
    """Draw weights as rlrun does, for TRL: Llama's own first ones make other learning curves."""
    shape = DecoderShape(
        layers=setting.layers,
        width=setting.width,
        heads=setting.heads,
        vocabulary=VOCABULARY,
        context=2 * setting.digits,
    )
    return llama_weights(Decoder(shape, torch.Generator().manual_seed(setting.seed)))


def measure_trl(python: str, setting: Setting) -> Measurement:
    """Train with TRL in a process of its own."""
    script = str(HERE / "token_peers.py")
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory) / "weights.safetensors"
        save_file(first_weights(setting), weights)
        asked = json.dumps({**asdict(setting), "weights": str(weights)})
        finished = run_process([python, script, "speed", asked])
    said = json.loads(finished.output.splitlines()[-1])
    return {**summarized(said["seconds"], said["rewards"], setting), "peak_mib": finished.peak_mib}


def measure_rlrun(setting: Setting) -> Measurement:
    """Train with rlrun in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        longest = setting.responses * (setting.digits + 2)
        words = [
            *("algo=grpo", "env=copy", f"env.shortest={setting.digits}"),
            *(f"env.longest={setting.digits}", f"algo.num_envs={setting.responses}"),
            *(f"collector.group_size={setting.group_size}", f"model.layers={setting.layers}"),
            *(f"model.width={setting.width}", f"model.heads={setting.heads}"),
            f"algo.optimizer.learning_rate={setting.learning_rate}",
            f"algo.optimizer.max_grad_norm={setting.max_grad_norm}",
            *("algo.optimizer.anneal_learning_rate=false", "algo.entropy_coefficient=0"),
            *(f"total_steps={setting.updates * longest}", "log_every_steps=1"),
            *(f"hardware.threads={setting.threads}", f"run_dir={run}"),
            f"seed={setting.seed}",
        ]
        finished = run_process([sys.executable, "-m", "rlrun", *words])
        rows = [row for row in read_metrics(run / "metrics.jsonl") if "train/return" in row]
    times = [row["time_s"] for row in rows]
    seconds = [after - before for before, after in pairwise(times)]
    rewards = [row["train/return"] for row in rows][: setting.updates]
    figures = summarized(seconds[: setting.updates], rewards, setting)
    return {**figures, "peak_mib": finished.peak_mib}


def table(rounds: list[dict[str, Measurement]]) -> str:
    """Return the Markdown table of some rounds."""
    lines = [
        "| | samples/s (lowest to highest) | rlrun is × | reward | peak MiB |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in rounds[0]:
        own = [each[name]["steps_per_s"] for each in rounds]
        times = [each["rlrun"]["steps_per_s"] / each[name]["steps_per_s"] for each in rounds]
        speed, ratio = spread(own), spread(times)
        reward = statistics.median(each[name]["reward"] for each in rounds)
        peak = max(each[name]["peak_mib"] for each in rounds)
        lines.append(
            f"| {name} "
            f"| {speed['median']:,.0f} ({speed['lowest']:,.0f} to {speed['highest']:,.0f}) "
            f"| {ratio['median']:.1f} ({ratio['lowest']:.1f} to {ratio['highest']:.1f}) "
            f"| {reward:.3f} | {peak:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure both, and write tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", help="an interpreter that has TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--updates", type=int, help="of each run (default 100, and 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    report = {"machine": describe_machine(), "sizes": {}}
    text = []
    for name in arguments.sizes:
        setting = replace(SIZES[name], threads=available_cores(), seed=arguments.seed)
        if arguments.updates:
            setting = replace(setting, updates=arguments.updates)
        contenders: dict[str, Callable[[], Measurement]] = {
            "rlrun": partial(measure_rlrun, setting)
        }
        if arguments.peer_python:
            contenders["TRL"] = partial(measure_trl, arguments.peer_python, setting)
        rounds = compare(contenders, arguments.rounds)
        report["sizes"][name] = {"setting": asdict(setting), "rounds": rounds}
        text += [f"{name} parameters ({setting.layers} layers of {setting.width}):", ""]
        text += [table(rounds), ""]
    (arguments.output / "token_throughput.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.output / "token_throughput.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
