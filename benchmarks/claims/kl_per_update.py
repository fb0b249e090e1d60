"""Claim 3: how far one update moves the policy under a clip, a KL penalty and a trust region.

    python benchmarks/claims/kl_per_update.py

Trains PPO with and without its clip, PPO with a KL penalty and TRPO, with the same data per update,
and takes after each update the exact KL(π_old ‖ π_new) in every state of its rollout.
"""

import copy
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from common import COLORS, make_run, over_seeds, parse, side_by_side, tidy
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from rlrun.algos.contract import OnPolicyAlgorithm

ENV, STEPS, SEEDS = "hopper", 200_000, (0, 1, 2)
# Line of the picture -> settings. All have 2,048 steps an update; PPO's have 10 epochs of 64 rows.
METHODS = {
    "PPO without clip": ["algo=ppo", "algo.clip=1e6"],
    "PPO, clip 0.2": ["algo=ppo"],
    "KL penalty, β = 1": ["algo=ppo_kl", "algo.kl.target=null"],
    "KL penalty, target 0.01": ["algo=ppo_kl"],
    "TRPO, KL ≤ 0.01": ["algo=trpo"],
}
# The same for all: a tuned pair may have others.
COMMON = [f"env={ENV}", "algo.gamma=0.99", "advantage.lam=0.95", "hardware.threads=1"]
LIMIT = 0.01  # nats: TRPO's constraint and the penalty's target


def train(item: tuple[str, int], *, steps: int) -> dict[str, Any]:
    """Train one method with one seed.

    Returns:
        For each update the mean and the largest KL over states, and the return of the last policy.
    """
    method, seed = item
    run = make_run([*METHODS[method], *COMMON, f"seed={seed}", f"total_steps={steps}"])
    algorithm, collector = cast(OnPolicyAlgorithm, run.algorithm), run.open_collector()
    run.compilation.run()
    agent, mean, largest = algorithm.agent, [], []
    policy, done = agent.networks.policy, 0
    with torch.no_grad():
        while done < steps:
            transitions = collector.collect(agent.actor)
            obs = agent.observation_normalizer(transitions.obs)
            # A distribution's tensors may be the policy's parameters, which are about to change.
            old = copy.deepcopy(policy(obs))
            algorithm.update(transitions, progress=done / steps)
            agent.publish()
            done += transitions.steps
            kl = old.kl(policy(obs))
            mean.append(float(kl.mean()))
            largest.append(float(kl.max()))
    episodes = run.evaluator.play(run.experiment.evaluation.episodes, seed=0)
    run.close()
    return {
        "method": method,
        "seed": seed,
        "mean_kl": mean,
        "largest_kl": largest,
        "return": float(np.mean(episodes.returns)),
    }


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the distribution of the KL over all updates of a method's runs."""
    mean = np.concatenate([run["mean_kl"] for run in runs])
    largest = np.concatenate([run["largest_kl"] for run in runs])
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {
        "mean_kl": dict(zip(map(str, levels), np.quantile(mean, levels).tolist(), strict=True)),
        "share_above_limit": float((mean > 1.05 * LIMIT).mean()),
        "share_without_step": float((mean == 0).mean()),  # TRPO's line search found none
        "median_of_largest_kl": float(np.median(largest)),
        "return": over_seeds([run["return"] for run in runs]),
        "runs": runs,
    }


def draw(methods: dict[str, dict[str, Any]], steps: int) -> Figure:
    """Draw the distributions, the course over a run, and what was learned."""
    figure = Figure(figsize=(13, 3.6), dpi=120, layout="constrained")
    boxes, course, returns = figure.subplots(1, 3, width_ratios=[1.3, 1, 0.8])
    heights = range(len(methods))
    for height, (method, color) in enumerate(zip(methods, COLORS, strict=False)):
        runs = methods[method]["runs"]
        kl = np.array([run["mean_kl"] for run in runs])  # [seeds, updates]
        exponents = np.log10(kl[kl > 0])  # a step that was rejected has none
        parts = boxes.violinplot(exponents, [height], orientation="horizontal")
        for body in parts["bodies"]:
            body.set_color(color)
        for name in ("cbars", "cmins", "cmaxes"):
            parts[name].set_color(color)
            parts[name].set_linewidth(0.8)
        boxes.plot(np.log10(np.median(kl)), height, "|", color=color, ms=14, mew=2)
        at = np.arange(1, kl.shape[1] + 1) * steps / kl.shape[1]
        course.plot(at, np.median(kl, axis=0), color=color, lw=1.3, label=method)
        figures = methods[method]["return"]
        returns.plot(figures["values"], [height] * len(runs), "o", color=color, ms=4)
        returns.plot(figures["iqm"], height, "|", color=color, ms=14, mew=2)
    boxes.axvline(np.log10(LIMIT), color="0.4", ls="--", lw=1)
    boxes.set_yticks(heights, methods, fontsize=8)
    ticks = range(-5, 2)
    boxes.set_xticks(ticks, [f"$10^{{{exponent}}}$" for exponent in ticks])
    values = np.concatenate([r["mean_kl"] for m in methods.values() for r in m["runs"]])
    exponents = np.log10(values[values > 0])
    boxes.set_xlim(exponents.min() - 0.2, exponents.max() + 0.2)
    tidy(boxes, title="all updates (|: median)", x="mean KL(old ‖ new) of one update, nats", y="")
    course.set_yscale("log")
    course.xaxis.set_major_locator(MaxNLocator(5))
    course.xaxis.set_major_formatter(EngFormatter(sep=""))
    course.axhline(LIMIT, color="0.4", ls="--", lw=1)
    tidy(course, title="median over seeds", x="environment steps", y="mean KL of one update, nats")
    returns.set_yticks(heights, [""] * len(methods))
    returns.sharey(boxes)
    boxes.invert_yaxis()
    tidy(returns, title=f"after {steps:,} steps (●: a seed)", x="evaluation return", y="")
    figure.suptitle(
        f"How far an update of 2,048 steps moves the policy, {ENV.capitalize()}, "
        f"{len(next(iter(methods.values()))['runs'])} seeds; dashed: {LIMIT} nats, "
        "TRPO's limit and the penalty's target",
        fontsize=10,
    )
    return figure


def main() -> None:
    """Train and draw."""
    study = parse(__file__, __doc__)
    steps, seeds = (4_096, (0,)) if study.quick else (STEPS, SEEDS)
    items = [(method, seed) for method in METHODS for seed in seeds]
    runs = side_by_side(study, partial(train, steps=steps), items)
    methods = {
        method: summarize([run for run in runs if run["method"] == method]) for method in METHODS
    }
    study.write(
        {"env": ENV, "steps": steps, "limit": LIMIT, "methods": methods}, draw(methods, steps)
    )


if __name__ == "__main__":
    main()
