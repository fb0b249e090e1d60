"""Claim 9: is GRPO unstable with small models, beside PPO with a critic and distillation?

    python benchmarks/claims/small_models.py

Three sizes of a decoder are taught `add` until they have about a third of it right, and go on with
rewards, or with the probabilities of a teacher, for equally many tokens and with equally many
gradient steps of the same size: one for 512 responses. A run is unstable if it loses what it had:
measured as the largest fall of an evaluation below the best one before it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import COLORS, over_seeds, parse, plot_over_seeds, tidy, train
from language import EVALUATED, measured, starts, train_methods
from matplotlib.figure import Figure

TEACHER, TOKENS, SEEDS = 600_000, 300_000, (0, 1, 2)


class Size(NamedTuple):
    """A decoder, and how it is taught a third of `add` (tried on seed 100)."""

    model: Sequence[str]
    taught: int
    learning_rate: float


# By millions of parameters, about.
SIZES = {
    0.1: Size(["model.layers=2", "model.width=64", "model.heads=4"], 250_000, 3e-3),
    1.0: Size(["model.layers=5", "model.width=128", "model.heads=4"], 200_000, 1e-3),
    3.0: Size(["model.layers=7", "model.width=192", "model.heads=6"], 150_000, 1e-3),
}


BEGUN = "SFT, as they began"


def methods(teacher: Path) -> dict[str, Callable[[Path], Sequence[str]]]:
    """Return the words of each method."""
    ppo = ["algo=ppo", "algo.epochs=1", "algo.minibatch_size=1_000_000"]
    # The others' own steps are of 1e-3.
    large, small = (f"algo.optimizer.learning_rate={rate}" for rate in ("1e-3", "3e-4"))
    return {
        "PPO, steps of 1e-3": lambda start: [*ppo, large],
        "GRPO, steps of 1e-3": lambda start: ["algo=grpo"],
        "GRPO, steps of 3e-4": lambda start: ["algo=grpo", small],
        "distillation": lambda start: ["algo=distill", f"algo.reference={teacher}"],
        "PPO, steps of 3e-4": lambda start: [*ppo, small],
    }


def fall(directory: Path) -> float:
    """Return the largest fall of pass@1 below the best evaluation before it."""
    _, values = measured(directory, "eval/pass@1")
    return max(max(values[: k + 1]) - value for k, value in enumerate(values))


def final(directory: Path) -> float:
    """Return the last pass@1."""
    return measured(directory, "eval/pass@1")[1][-1]


MEASURES = {
    "right answers at the end (pass@1)": final,
    "largest fall of pass@1 within a run": fall,
}


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    tokens, seeds = (6_000, (0,)) if study.quick else (TOKENS, SEEDS)
    sizes = {0.1: SIZES[0.1]} if study.quick else SIZES
    words = ["env=add", *EVALUATED]
    taught = 6_000 if study.quick else TEACHER
    runs = {"teacher": ["algo=sft", *words, *SIZES[0.1].model, f"total_steps={taught}", "seed=100"]}
    teacher = train(study, runs)["teacher"].resolve()
    result: dict[str, dict[str, Any]] = {method: {} for method in (*methods(teacher), BEGUN)}
    for size, decoder in sizes.items():
        own = study._replace(name=f"{study.name}_{size}")
        taught = 6_000 if study.quick else decoder.taught
        lesson = [
            *["algo=sft", "env=add", *decoder.model, f"total_steps={taught}"],
            f"algo.optimizer.learning_rate={decoder.learning_rate}",
        ]
        begin = starts(own, lesson, seeds)
        common = [*words, *decoder.model, f"total_steps={tokens}"]
        trained = train_methods(own, methods(teacher), begin, common)
        for method, directories in (trained | {BEGUN: list(begin.values())}).items():
            result[method][str(size)] = {
                name: over_seeds([measure(each) for each in directories])
                for name, measure in MEASURES.items()
            }
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for number, method in enumerate(result):
            figures = [result[method][str(size)][name] for size in sizes]
            shifted = [size * 1.05 ** (number - 2.5) for size in sizes]
            plot_over_seeds(axes, shifted, figures, color=COLORS[number], label=method)
        axes.set_xscale("log")
        axes.set_xticks(list(sizes), [f"{size:g} M" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(0, 1)
        tidy(axes, title=name, x="parameters", y="share")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(
        f"add, {tokens:,} tokens after SFT: interquartile mean and 95 % interval over "
        f"{len(seeds)} seeds",
        fontsize=10,
    )
    study.write({"env": "add", "tokens": tokens, "seeds": seeds, "methods": result}, figure)


if __name__ == "__main__":
    main()
