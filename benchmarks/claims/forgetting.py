"""Claim 11: what is forgotten of one task when another one is learned, from answers or rewards.

    python benchmarks/claims/forgetting.py

A policy that copies digits learns to reverse them, for some budgets of tokens; the first letter of
a prompt says which is asked for, so that both could be known. SFT learns from answers that it would
not have given, the others from what they write themselves (Shenfeld et al. 2025, "RL's Razor",
arXiv:2509.04259: of the solutions of a new task, those on-policy are nearest to the old policy).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from common import COLORS, load_trained, over_seeds, parse, side_by_side, tidy
from language import starts, train_methods
from matplotlib.figure import Figure

from rlrun.envs.tokens.strings import Copy, Reverse
from rlrun.models.actor import Actor
from rlrun.runs.language.responses import LanguageEvaluator

TAUGHT, BUDGETS, SEEDS = 300_000, (50_000, 100_000, 200_000, 400_000), (0, 1, 2)
METHODS: dict[str, Callable[[Path], Sequence[str]]] = {
    "SFT": lambda start: ["algo=sft"],
    "online RFT": lambda start: ["algo=rft"],
    "GRPO": lambda start: ["algo=grpo"],
    "GRPO with a KL penalty (β = 0.1)": lambda start: [
        *["algo=grpo", f"algo.kl.reference={start}", "algo.kl.coefficient=0.1"],
    ],
}
PROMPTS = 1_000  # of each task, at the end of each run


TASKS = {"copy": Copy, "reverse": Reverse}


def right(directory: Path) -> dict[str, float]:
    """Return the share of prompts of each task that a run answers as is wanted, greedily.

    And, as ``<task>, alike``, the share of those whose answer is the same in both.
    """
    assembly = load_trained(directory, change=lambda experiment: experiment)
    trained, actor = assembly.experiment.env, assembly.algorithm.agent.actor
    assert isinstance(trained, Copy | Reverse)
    assert isinstance(actor, Actor)
    found = {}
    for name, kind in TASKS.items():
        task = kind(
            shortest=trained.shortest,
            longest=trained.longest,
            reward="exact",
            held_out=trained.held_out,
            samples=1,
        )
        evaluator = LanguageEvaluator(task, lambda: actor)
        found[name] = evaluator.play(PROMPTS, seed=0).metrics()["eval/outcome"]
        prompts = evaluator.make(PROMPTS).held_out_prompts(0).texts
        digits = [prompt[1:-1] for prompt in prompts]
        found[f"{name}, alike"] = sum(each == each[::-1] for each in digits) / PROMPTS
        evaluator.close()
    return found


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    budgets, seeds = ((6_000,), (0,)) if study.quick else (BUDGETS, SEEDS)
    taught = ["algo=sft", "env=copy", f"total_steps={6_000 if study.quick else TAUGHT}"]
    begin = starts(study, taught, seeds)
    directories: dict[str, dict[int, list[Path]]] = {method: {} for method in METHODS}
    for budget in budgets:
        own = study._replace(name=f"{study.name}_{budget}")
        common = ["env=reverse", f"total_steps={budget}"]
        for method, runs in train_methods(own, METHODS, begin, common).items():
            directories[method][budget] = runs
    places = [*begin.values(), *(d for by in directories.values() for r in by.values() for d in r)]
    shares = dict(zip(places, side_by_side(study, right, places), strict=True))
    result = {
        method: {
            str(budget): {task: over_seeds([shares[run][task] for run in runs]) for task in TASKS}
            for budget, runs in by_budget.items()
        }
        for method, by_budget in directories.items()
    }
    start = {
        name: over_seeds([shares[run][name] for run in begin.values()])
        for name in shares[next(iter(begin.values()))]
    }
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, both = figure.subplots(1, 2)
    for color, method in zip(COLORS, METHODS, strict=False):
        figures = [result[method][str(budget)] for budget in budgets]
        for axes, x in (
            (left, [budget / 1_000 for budget in budgets]),
            (both, [each["reverse"]["iqm"] for each in figures]),
        ):
            axes.plot(x, [each["copy"]["iqm"] for each in figures], "-o", color=color, ms=4)
            for position, each in zip(x, figures, strict=True):
                values = each["copy"]["values"]
                axes.plot([position] * len(values), values, "o", color=color, ms=3, alpha=0.35)
        left.plot([], [], "-o", color=color, ms=4, label=method)
    for axes in (left, both):
        axes.axhline(start["copy"]["iqm"], color="0.5", lw=0.8, ls="--")
        axes.axhline(start["copy, alike"]["iqm"], color="0.5", lw=0.8, ls=":")
        axes.set_ylim(0, 1.02)
    left.set_xscale("log")
    left.set_xticks([budget / 1_000 for budget in budgets], [f"{b // 1_000}" for b in budgets])
    left.minorticks_off()
    title = "still right of the old task"
    tidy(left, title=title, x="tokens of the new task, thousands", y="copied rightly")
    tidy(both, title=title, x="reversed rightly", y="copied rightly")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(
        f"from copy to reverse: interquartile mean and each of {len(seeds)} seeds; dashed: before; "
        "dotted: prompts that read the same backwards",
        fontsize=10,
    )
    content = {"budgets": budgets, "seeds": seeds, "start": start, "methods": result}
    study.write(content, figure)


if __name__ == "__main__":
    main()
