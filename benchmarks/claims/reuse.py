"""Claim 5: how far importance weights spread as a batch is used again and again.

    python benchmarks/claims/reuse.py

Trains PPO on Hopper for a while, then lets it learn from single rollouts for many more epochs than
usual, from the same state each time, with and without the clip and with different step sizes. After
each epoch the ratios ρ = π_θ/π_old of all rows of the rollout are looked at.
"""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import COLORS, load_trained, parse, side_by_side, tidy, train
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlrun.algos.policy_gradient.ppo import PPO
from rlrun.config.experiment import Experiment
from rlrun.learning.metrics import ratio_metrics

ENV, PRETRAINING, SEEDS = "hopper", 50_000, (0, 1, 2)
CLIP, NO_CLIP = 0.2, 1e6
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
EPOCHS, ROLLOUTS = 30, 4
MEASURES = ("effective_sample_size", "ratio_max", "clip_fraction")


def steady(experiment: Experiment, *, clip: float, learning_rate: float) -> Experiment:
    """Change PPO's clip and its step size, which stays what it is."""
    optimizer = replace(
        experiment.algo.optimizer, learning_rate=learning_rate, anneal_learning_rate=False
    )
    return replace(experiment, algo=replace(experiment.algo, clip=clip, optimizer=optimizer))


def measure(
    item: tuple[float, float, Path], *, epochs: int, rollouts: int
) -> dict[str, list[list[float]]]:
    """Return each measure after 0, 1, 2 … epochs, for each rollout: [rollouts, epochs + 1]."""
    clip, learning_rate, directory = item
    run = load_trained(directory, partial(steady, clip=clip, learning_rate=learning_rate))
    algorithm, collector = cast(PPO, run.algorithm), run.open_collector()
    agent, body = algorithm.agent, algorithm.body
    weights = copy.deepcopy(agent.weights())
    learners = {name: copy.deepcopy(x.state_dict()) for name, x in algorithm.learners.items()}
    history: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
    for _ in range(rollouts):
        agent.load_weights(weights)
        for name, learner in algorithm.learners.items():
            learner.load_state_dict(copy.deepcopy(learners[name]))
        rollout = agent.rollout(collector.collect(agent.actor))
        estimate = agent.estimate(rollout)
        for values in history.values():
            values.append([])
        for number in range(epochs + 1):
            if number > 0:
                with torch.no_grad():
                    body.fit(rollout, next(body.epochs(rollout, estimate)), progress=0.0)
            log_ratio = agent.networks.policy(rollout.obs).log_prob(rollout.action) - rollout.logp
            metrics = ratio_metrics(log_ratio.flatten(), CLIP)
            for name, values in history.items():
                values[-1].append(float(metrics[f"policy/{name}"]))
    run.close()
    return history


def draw(settings: list[dict[str, Any]]) -> Figure:
    """Draw each measure against the epoch: medians, and quartiles where there is a clip."""
    rollouts = len(settings[0][MEASURES[0]])
    figure = Figure(figsize=(13, 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, 3)
    colors = dict(zip(LEARNING_RATES, COLORS, strict=False))
    for row in settings:
        style = "--" if row["clip"] is None else "-"
        for axes, name in zip(panels, MEASURES, strict=True):
            values, color = np.array(row[name]), colors[row["learning_rate"]]
            axes.plot(np.median(values, axis=0), style, color=color, lw=1.5)
            if row["clip"] is not None:
                low, high = np.quantile(values, [0.25, 0.75], axis=0)
                axes.fill_between(range(values.shape[1]), low, high, color=color, alpha=0.15, lw=0)
    for axes, title, y in zip(
        panels,
        ("effective sample size", "largest ratio", f"ratios outside 1 ± {CLIP}"),
        ("(Σρ)² / (n Σρ²)", "max ρ", "share of the rows"),
        strict=True,
    ):
        axes.axvline(10, color="0.7", lw=1, ls=":")
        tidy(axes, title=title, x="epochs over one rollout of 2,048 steps", y=y)
    panels[1].set_yscale("log")
    handles = [Line2D([], [], color=c, label=f"step size {rate:g}") for rate, c in colors.items()]
    handles += [
        Line2D([], [], color="0.3", label=f"clip {CLIP}"),
        Line2D([], [], color="0.3", ls="--", label="no clip"),
    ]
    figure.legend(handles=handles, fontsize=8, loc="outside right upper")
    figure.suptitle(
        "PPO on Hopper: the more often a rollout is used, the fewer of its rows count "
        f"(median of {rollouts} rollouts, bands: quartiles; dotted: PPO's 10 epochs)",
        fontsize=10,
    )
    return figure


def main() -> None:
    """Train, measure and draw."""
    study = parse(__file__, __doc__)
    seeds = SEEDS[:1] if study.quick else SEEDS
    epochs, rollouts = (4, 1) if study.quick else (EPOCHS, ROLLOUTS)
    steps = 4096 if study.quick else PRETRAINING
    directories = train(
        study,
        {
            f"s{seed}": [
                "algo=ppo",
                f"env={ENV}",
                f"seed={seed}",
                f"total_steps={steps}",
                "algo.optimizer.anneal_learning_rate=false",
            ]
            for seed in seeds
        },
    )
    settings = [(clip, rate) for clip in (CLIP, NO_CLIP) for rate in LEARNING_RATES]
    items = [(*setting, directory) for setting in settings for directory in directories.values()]
    measured = side_by_side(study, partial(measure, epochs=epochs, rollouts=rollouts), items)
    result: list[dict[str, Any]] = []
    for clip, rate in settings:
        own = [m for item, m in zip(items, measured, strict=True) if item[:2] == (clip, rate)]
        result.append(
            {
                "clip": None if clip == NO_CLIP else clip,
                "learning_rate": rate,
                # [seeds x rollouts, epochs + 1]
                **{name: [row for m in own for row in m[name]] for name in MEASURES},
            }
        )

    content = {"env": ENV, "pretraining_steps": steps, "epochs": epochs, "settings": result}
    study.write(content, draw(result))


if __name__ == "__main__":
    main()
