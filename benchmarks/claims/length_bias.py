"""Claim 10: GRPO's two divisions, by the spread of a group and by the length of a response.

    python benchmarks/claims/length_bias.py

Whoever is asked for a sum may write any number of dots behind it, which count for nothing
(`padding.py`). Nothing is to be gained by them, so that a change of length is what a loss does by
itself; for the same reason there is no entropy bonus, and steps are small. GRPO divides the loss of
a response by its own length, so that a wrong answer is blamed less the longer it is (Liu et al.
2025, "Understanding R1-Zero-Like Training", arXiv:2503.20783, §3.1); and an advantage by its
group's spread, which counts easy and hard prompts more than others.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from common import parse
from language import EVALUATED, curve, draw_methods, let_runs_find_plugins, starts, train_methods

TAUGHT, TOKENS, SEEDS = 1_500_000, 1_000_000, (0, 1, 2)
# Of one start: the losses, which differ in these two divisions alone.
METHODS: dict[str, Callable[[Path], Sequence[str]]] = {
    "GRPO: both divisions": lambda start: ["algo=grpo"],
    "without that by the length": lambda start: [
        *["algo=grpo", "algo.aggregation=episode_mean_step_norm"],
    ],
    "without that by the spread": lambda start: ["algo=grpo", "advantage=dr_grpo"],
    "Dr. GRPO: neither": lambda start: [
        *["algo=grpo", "advantage=dr_grpo"],
        "algo.aggregation=episode_mean_step_norm",
    ],
}
NUMBERS = {
    "eval/length_wrong": "tokens of wrong answers",
    "eval/length_right": "tokens of right answers",
    "eval/pass@1": "right answers (pass@1)",
}


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    let_runs_find_plugins()
    tokens, seeds = (12_000, (0,)) if study.quick else (TOKENS, SEEDS)
    task = ["env=add", "env._target_=padding.PaddedAdd", "plugins=[padding]"]
    taught = ["algo=sft", *task, f"total_steps={12_000 if study.quick else TAUGHT}"]
    begin = starts(study, taught, seeds)
    common = [*task, f"total_steps={tokens}", *EVALUATED]
    common += ["algo.entropy_coefficient=0", "algo.optimizer.learning_rate=3e-4"]
    directories = train_methods(study, METHODS, begin, common)
    result = {
        method: {name: curve(runs, name) for name in NUMBERS}
        for method, runs in directories.items()
    }
    title = (
        f"add with dots behind the sum, from a policy taught by {TAUGHT:,} tokens of answers: "
        f"interquartile mean and 95 % interval over {len(seeds)} seeds"
    )
    figure = draw_methods(result, NUMBERS, title=title, y="")
    study.write({"env": "add", "tokens": tokens, "seeds": seeds, "methods": result}, figure)


if __name__ == "__main__":
    main()
