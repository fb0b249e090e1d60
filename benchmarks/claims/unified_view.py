"""Claim 7: SFT, RFT, DPO, PPO and GRPO are one gradient with different coefficients.

    python benchmarks/claims/unified_view.py

All begin as a policy that was taught `add` by its answers for a while, and write equally many
tokens. ∇L = −Σ GC ∇ log π (Shao et al. 2024, §5.2): they differ by whose responses they learn from,
and by the coefficient GC of each. Every method has the values of its file.
"""

from pathlib import Path

from common import parse
from language import EVALUATED, curve, draw_methods, starts, train_methods

TAUGHT, TOKENS, SEEDS = 200_000, 400_000, (0, 1, 2)
METHODS = {
    "SFT: answers, GC = 1": lambda start: ["algo=sft"],
    "RFT: the start's right responses, GC = 1": lambda start: [
        "algo=rft",
        f"algo.reference={start}",
    ],
    "online RFT: its own right responses, GC = 1": lambda start: ["algo=rft"],
    "DPO: pairs of the start's, GC = ±β σ(−βΔ)": lambda start: [
        "algo=dpo",
        f"algo.reference={start}",
    ],
    "GRPO: its own, GC = Â of the group": lambda start: ["algo=grpo"],
    "PPO: its own, GC = Â by a critic": lambda start: ["algo=ppo"],
}
NUMBERS = {
    "eval/pass@1": "right answers of drawn ones (pass@1)",
    "eval/pass@8": "one of eight drawn ones is right (pass@8)",
    "eval/distinct": "distinct answers of drawn ones",
}


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    tokens, seeds = (6_000, (0,)) if study.quick else (TOKENS, SEEDS)
    taught = [f"total_steps={6_000 if study.quick else TAUGHT}", "algo=sft", "env=add"]
    begin = starts(study, taught, seeds)
    common = ["env=add", f"total_steps={tokens}", *EVALUATED]
    directories: dict[str, list[Path]] = train_methods(study, METHODS, begin, common)
    result = {
        method: {name: curve(runs, name) for name in NUMBERS}
        for method, runs in directories.items()
    }
    title = (
        f"add, prompts that training never sees, from a policy taught by {TAUGHT:,} tokens of "
        f"answers: interquartile mean and 95 % interval over {len(seeds)} seeds"
    )
    figure = draw_methods(result, NUMBERS, title=title, y="share")
    study.write({"env": "add", "tokens": tokens, "seeds": seeds, "methods": result}, figure)


if __name__ == "__main__":
    main()
