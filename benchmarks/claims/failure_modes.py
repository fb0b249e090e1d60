"""Claim 8: how rewards go wrong on language, and what KL, entropy and clip-higher do about it.

    python benchmarks/claims/failure_modes.py

- **Reward hacking**: `copy` is paid for repeated digits, too (`repetition.py`).
- **Overfitting**: `add` with 16 prompts in place of 8,000; evaluated on others.
- **Loss of diversity**: `brackets`, where many answers are right.

GRPO takes several steps an iteration here (four epochs of four minibatches), since a clip has no
effect on the first one; the remedies are one change each.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from common import COLORS, Study, parse, tidy
from language import (
    EVALUATED,
    curve,
    draw_curve,
    let_runs_find_plugins,
    ones_first,
    starts,
    sums,
    train_methods,
    write_examples,
)
from matplotlib.figure import Figure

TOKENS, SEEDS = 200_000, (0, 1, 2)
# Tokens that the start of each study is taught by; sums of two digits take the most.
TAUGHT = {"hacking": 150_000, "overfitting": 500_000, "diversity": 150_000}
STEPS = ["algo.epochs=4", "algo.episodes_per_minibatch=128", "algo.entropy_coefficient=0"]
PLAIN = ["algo=grpo", *STEPS]
REMEDIES: dict[str, Callable[[Path], Sequence[str]]] = {
    "GRPO": lambda start: PLAIN,
    "with a KL penalty (β = 0.1)": lambda start: [
        *PLAIN,
        f"algo.kl.reference={start}",
        "algo.kl.coefficient=0.1",
    ],
    "with an entropy bonus (0.03)": lambda start: [*PLAIN, "algo.entropy_coefficient=0.03"],
    "with clip-higher (0.2, 0.4)": lambda start: [
        *["algo=dapo", *STEPS, "algo.clip_high=0.4", "collector.refill=null"],
        "algo.aggregation=episode_mean_step_mean",
    ],
}
# Numbers that are drawn, by study.
PANELS = {
    "hacking": {
        "train/return": "reward hacking: what is paid",
        "train/outcome": "reward hacking: right answers",
    },
    "overfitting": {
        "train/outcome": "16 prompts: right answers to these",
        "eval/pass@1": "16 prompts: right answers to others",
    },
    "diversity": {
        "eval/pass@1": "brackets: pass@1",
        "eval/distinct": "brackets: distinct answers of drawn ones",
    },
}


def on_all_prompts(start: Path) -> list[str]:
    """Return the words of GRPO with the prompts that the start was taught on."""
    return [*PLAIN, f"env.path={start.parent / 'many.jsonl'}"]


def begin_and_words(study: Study, name: str, seeds: tuple[int, ...]) -> tuple[dict, list[str]]:
    """Return the runs that those of a study begin as, and the words that all of them have."""
    own = Study(f"{study.name}_{name}", study.quick, study.parallel)
    taught = 3_000 if study.quick else TAUGHT[name]
    match name:
        case "hacking":
            start = ["algo=sft", "env=copy", f"total_steps={taught}"]
            words = ["env=copy", "env._target_=repetition.Repeating", "plugins=[repetition]"]
        case "overfitting":
            drawn = sums(9_000, 1, ones_first)
            others = write_examples(own.directory / "others.jsonl", drawn[:1_000])
            many = write_examples(own.directory / "many.jsonl", drawn[1_000:])
            few = write_examples(own.directory / "few.jsonl", drawn[-16:])
            task = ["env=prompts", f"env.held_out_path={others}", "env.max_response_tokens=5"]
            start = [*task, "algo=sft", f"env.path={many}", f"total_steps={taught}"]
            # Steps of 1e-3 lose what was taught.
            words = [*task, f"env.path={few}", "algo.optimizer.learning_rate=3e-4"]
        case _:
            # Any right answer will do: what it writes is kept where the judge calls it right.
            start = ["algo=rft", "env=brackets", f"total_steps={taught}"]
            words = ["env=brackets"]
    return starts(own, start, seeds), words


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    let_runs_find_plugins()
    tokens, seeds = (4_000, (0,)) if study.quick else (TOKENS, SEEDS)
    result = {}
    for name, numbers in PANELS.items():
        begin, words = begin_and_words(study, name, seeds)
        own = Study(f"{study.name}_{name}", study.quick, study.parallel)
        common = [*words, f"total_steps={tokens}", *EVALUATED]
        methods = dict(REMEDIES)
        if name == "overfitting":
            methods["GRPO, 8,000 prompts"] = on_all_prompts
        directories: dict[str, list[Path]] = train_methods(own, methods, begin, common)
        result[name] = {
            method: {number: curve(runs, number) for number in numbers}
            for method, runs in directories.items()
        }
    figure = Figure(figsize=(11, 6.4), dpi=120, layout="constrained")
    panels = [(name, number) for name, numbers in PANELS.items() for number in numbers]
    places = figure.subplots(2, len(PANELS)).T.flat
    for axes, (name, number) in zip(places, panels, strict=True):
        for color, (method, figures) in zip(COLORS, result[name].items(), strict=False):
            draw_curve(axes, figures[number], color=color, label=method)
        tidy(axes, title=PANELS[name][number], x="tokens written, thousands", y="share")
        axes.set_ylim(0, 1)
    labels = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(
        f"interquartile mean and 95 % interval over {len(seeds)} seeds, from policies that were "
        "taught for a while",
        fontsize=10,
    )
    study.write({"tokens": tokens, "seeds": seeds, "studies": result}, figure)


if __name__ == "__main__":
    main()
