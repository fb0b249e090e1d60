"""Claim 4: what the size of a group and the division by its spread do to GRPO and RLOO.

    python benchmarks/claims/group_size.py

Trains on CartPole at equal environment steps with groups of 2 to 16 episodes. The number of
episodes of an update is always the same: larger groups are fewer groups.
"""

from common import COLORS, final_return, over_seeds, parse, plot_over_seeds, tidy, train
from matplotlib.figure import Figure

from rlrun.analysis.stored_runs import read_run

ENV, STEPS, SEEDS = "cartpole", 100_000, (0, 1, 2)
GROUP_SIZES = (2, 4, 8, 16)
# Line of the picture -> settings. The first two differ in the division alone.
METHODS = {
    "GRPO: (return − mean) / spread": ["algo=grpo"],
    "GRPO without division: return − mean": ["algo=grpo", "advantage=dr_grpo"],
    "RLOO: return − mean of the others": ["algo=rloo"],
}


def mean_return(directory) -> float:
    """Return the mean over all evaluations of a run: how early it learned."""
    return float(read_run(directory).evaluations.returns.mean())


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    steps, seeds = (3_000, (0,)) if study.quick else (STEPS, SEEDS)
    sizes = GROUP_SIZES[::3] if study.quick else GROUP_SIZES
    directories = train(
        study,
        {
            f"{number}_{size}_s{seed}": [
                *words,
                f"env={ENV}",
                f"collector.group_size={size}",
                "algo.num_envs=16",
                f"seed={seed}",
                f"total_steps={steps}",
                "evaluation.every_steps=5_000",
            ]
            for size in sizes
            for number, words in enumerate(METHODS.values())
            for seed in seeds
        },
    )
    measures = {"final": final_return, "mean over the run": mean_return}
    result = {
        method: {
            str(size): {
                name: over_seeds([f(directories[f"{number}_{size}_s{s}"]) for s in seeds])
                for name, f in measures.items()
            }
            for size in sizes
        }
        for number, method in enumerate(METHODS)
    }
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(measures)), measures, strict=True):
        for number, method in enumerate(METHODS):
            figures = [result[method][str(size)][name] for size in sizes]
            shifted = [size * 1.06 ** (number - 1) for size in sizes]  # side by side
            plot_over_seeds(axes, shifted, figures, color=COLORS[number], label=method)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        tidy(axes, title=f"evaluation return, {name}", x="episodes in a group", y="return")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(METHODS), fontsize=8)
    figure.suptitle(
        f"CartPole, {steps:,} steps, 16 episodes an update: interquartile mean and 95 % "
        f"interval over {len(seeds)} seeds",
        fontsize=10,
    )
    study.write({"env": ENV, "steps": steps, "seeds": seeds, "methods": result}, figure)


if __name__ == "__main__":
    main()
