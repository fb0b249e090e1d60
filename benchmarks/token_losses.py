"""Are the losses of DPO, IPO and SFT those of TRL, with the same weights on the same examples?

    python benchmarks/token_losses.py --peer-python peers/bin/python

TRL's trainers take a step of size zero on a few examples and say their loss; so does rlrun, by its
command line, on the directories of the same models. Exits with 1 if two differ by more than 1e-4.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from measure import HERE, run_process

from rlrun.loggers.jsonl import read_metrics

PAIRS = 8
TOLERANCE = 1e-4


def write_examples(directory: Path) -> None:
    """Write pairs of answers to prompts, of several lengths, and one right answer."""
    draw = random.Random(0)
    digits = ["".join(draw.choices("0123456789", k=k % 5 + 2)) for k in range(3 * PAIRS)]
    pairs = [
        {"prompt": f"C{prompt}=", "chosen": chosen, "rejected": rejected}
        for prompt, chosen, rejected in zip(*[iter(digits)] * 3, strict=True)
    ]
    answers = [{"prompt": "C31415=", "answer": "31415"}]
    prompts = [{"prompt": each["prompt"], "answer": each["chosen"]} for each in pairs]
    for name, rows in (("pairs", pairs), ("answers", answers), ("prompts", prompts)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (directory / f"{name}.jsonl").write_text(text)


def loss_of(algo: str, directory: Path) -> float:
    """Return the loss that rlrun logs of its first step."""
    run = directory / f"run_{algo}"
    prompts = "answers" if algo == "sft" else "prompts"
    words = [
        *(f"algo={algo}", "env=prompts", f"env.path={directory / prompts}.jsonl"),
        *("env.held_out=0", "model=huggingface", f"model.path={directory / 'policy'}"),
        *("algo.optimizer.learning_rate=1e-30", "total_steps=1", "log_every_steps=1"),
        *("evaluation.episodes=1", "env.samples=1", f"run_dir={run}"),
    ]
    if algo == "sft":
        words += ["algo.num_envs=1", "collector.group_size=1"]
    else:
        words += ["collector=pairs", f"collector.path={directory / 'pairs.jsonl'}"]
        # TRL's log-ratios of ipo are means over tokens, and the paper's sums.
        words.append(f"algo.length_normalized={str(algo == 'ipo').lower()}")
        words += [f"algo.num_envs={2 * PAIRS}", f"algo.reference={directory / 'reference'}"]
    run_process([sys.executable, "-m", "rlrun", *words])
    rows = read_metrics(run / "metrics.jsonl")
    return next(row["loss/policy"] for row in rows if "loss/policy" in row)


def main() -> None:
    """Compare the losses; exit with 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", required=True, help="an interpreter that has TRL")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "token_losses.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_examples(directory)
        script = str(HERE / "token_peers.py")
        said = run_process([arguments.peer_python, script, "losses", name]).output
        peers = json.loads(said.splitlines()[-1])
        ours = {algo: loss_of(algo, directory) for algo in peers}
    report = {
        algo: {"TRL": peer, "rlrun": ours[algo], "difference": abs(peer - ours[algo])}
        for algo, peer in peers.items()
    }
    print(json.dumps(report, indent=1))
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(any(each["difference"] > TOLERANCE for each in report.values()))


if __name__ == "__main__":
    main()
