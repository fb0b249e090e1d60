"""Claim 2: what each Ψ and each baseline does to the variance of the policy gradient.

    python benchmarks/claims/gradient_variance.py

A half-trained policy stays as it is. Batches of whole episodes are collected with it, in groups
from one start, and every estimator makes its gradient from the same batches. γ = 1, so that all
unbiased estimators have one expectation; the critics were fitted to this very policy.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    Study,
    make_estimator,
    parse,
    side_by_side,
    tidy,
    train,
)
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from rlrun.advantages.columns import COLUMNS, Estimator, column
from rlrun.collectors.episodes import Episodes
from rlrun.config.experiment import Experiment
from rlrun.config.load import load_run
from rlrun.data.minibatches import minibatches
from rlrun.data.rollout import Rollout
from rlrun.learning.agent import Agent
from rlrun.learning.critics import Critics, critic_batches
from rlrun.learning.losses.aggregation import step_weights
from rlrun.learning.optimizers import Adam
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.disk import CHECKPOINTS
from rlrun.runs.setup.assembly import Assembly

EPISODES, GROUP_SIZE = 64, 8
BATCHES, CRITIC_BATCHES = 150, 20
CRITIC_EPOCHS, CRITIC_MINIBATCH, CRITIC_LEARNING_RATE = 10, 256, 1e-3
GAMMA = 1.0
RESAMPLES = 500
# Steps of training before the policy is frozen: late enough that it has learned something, early
# enough that episodes hardly reach the time limit, where those with a critic go on and others end.
PRETRAINING = {"cartpole": 6_000, "hopper": 60_000}

# By what they need: line of the picture -> estimator on the command line, and its constants.
RETURNS, CRITIC, BOOTSTRAP, GROUPS = "returns alone", "V", "V or Q, biased", "groups"
COLORS = {RETURNS: BLUE, CRITIC: GREEN, BOOTSTRAP: ORANGE, GROUPS: PURPLE}
ESTIMATORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "total_return": (RETURNS, "total_return", {}),
    "reward_to_go": (RETURNS, "reward_to_go", {}),
    "baseline_constant": (RETURNS, "baseline_constant", {}),
    "baseline_optimal": (RETURNS, "baseline_optimal", {}),
    "reinforce_pp": (RETURNS, "reinforce_pp", {}),
    "baseline_value (gae, λ = 1)": (CRITIC, "baseline_value", {}),
    "gae, λ = 0.95": (BOOTSTRAP, "gae", {"lam": 0.95}),
    "nstep, n = 5": (BOOTSTRAP, "nstep", {"n": 5}),
    "td (gae, λ = 0)": (BOOTSTRAP, "td", {}),
    "q_value": (BOOTSTRAP, "q_value", {}),
    "advantage_q, Q − V": (BOOTSTRAP, "advantage_q", {"baseline": "value"}),
    "advantage_q, Q − E Q": (BOOTSTRAP, "advantage_q", {"baseline": "policy_mean"}),
    "rloo": (GROUPS, "rloo", {}),
    "dr_grpo": (GROUPS, "dr_grpo", {}),
    "grpo": (GROUPS, "grpo", {}),
    "reinforce_pp, group": (GROUPS, "reinforce_pp", {"baseline": "group"}),
    "time_group": (GROUPS, "time_group", {}),
}
REFERENCE = "baseline_value (gae, λ = 1)"


def every_column(rollout: Rollout, *, gamma: float, discrete: bool) -> tuple[Any, Any]:
    """Ask for all that networks say of a rollout, as an estimator does."""
    for name in COLUMNS:
        if discrete or name != "policy_q":
            column(rollout, name)
    return rollout.reward, rollout.reward


def in_groups(experiment: Experiment, *, episodes: int, discrete: bool) -> Experiment:
    """Change a run so that it collects groups of episodes, with all columns and raw rewards."""
    algo = experiment.algo
    normalization = replace(algo.normalization, reward=False)
    return replace(
        experiment,
        algo=replace(algo, num_envs=episodes, gamma=GAMMA, normalization=normalization),
        collector=Episodes(group_size=GROUP_SIZE),
        advantage=partial(every_column, discrete=discrete),
    )


class FixedPolicy:
    """A policy that does not learn, and critics that fit it."""

    def __init__(self, directory: Path, *, episodes: int):
        """Load the policy of a run; its critics begin anew."""
        experiment = load_run(directory)
        experiment.hardware.prepare()
        trained = CheckpointStore(directory / CHECKPOINTS, keep=1).load_last()
        self.discrete = "policy.log_std" not in trained.weights
        run = Assembly(in_groups(experiment, episodes=episodes, discrete=self.discrete), None)
        self.agent = cast(Agent, run.algorithm.agent)
        self.agent.networks.policy.load_state_dict(
            {
                name.removeprefix("policy."): weight
                for name, weight in trained.weights.items()
                if name.startswith("policy.")
            }
        )
        self._frozen = trained.state["algorithm.observation_normalizer"]
        self.agent.observation_normalizer.load_state_dict(self._frozen)
        self._shuffle = run.streams.minibatch
        self._episodes = run.open_collector()
        self.scale = 1.0

    def collect(self) -> Rollout:
        """Return a batch with rewards in units of the returns' spread."""
        rollout = self.agent.rollout(self._episodes.collect(self.agent.actor))
        self.agent.observation_normalizer.load_state_dict(self._frozen)
        return replace(rollout, reward=rollout.reward / self.scale)

    def fit_critics(self, batches: int) -> None:
        """Fit V and Q to the reward-to-go of this policy."""
        returns, _ = make_estimator("reward_to_go")(self.collect(), gamma=GAMMA)
        self.scale = float(returns[0].std())
        adam = Adam(
            learning_rate=CRITIC_LEARNING_RATE,
            anneal_learning_rate=False,
            epsilon=1e-5,
            max_grad_norm=np.inf,
        )
        critics = Critics(self.agent.networks, optimizer=adam)
        for _ in range(batches):
            rollout = self.collect()
            _, target = make_estimator("reward_to_go")(rollout, gamma=GAMMA)
            for _ in range(CRITIC_EPOCHS):
                rows = minibatches(rollout.mask, size=CRITIC_MINIBATCH, generator=self._shuffle)
                batch = critic_batches(rollout, target, rows)
                critics.fit(batch, progress=0.0)


def gradients(agent: Agent, rollout: Rollout, advantages: list[torch.Tensor]) -> NDArray:
    """Return (1/N) Σ_i Σ_t Ψ ∇ log π for each Ψ [T, N], as [estimators, P]."""
    policy = agent.networks.policy
    parameters = list(policy.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    log_prob = policy(rollout.obs).log_prob(rollout.action)  # [T, N]
    weights = step_weights(rollout.mask, "episode_mean_step_sum", longest=len(rollout.mask))
    rows = [
        torch.autograd.grad(log_prob, parameters, weights * advantage, retain_graph=True)
        for advantage in advantages
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).numpy()


def statistics(gradient: NDArray, reference: NDArray) -> dict[str, Any]:
    """Describe the gradients of one estimator.

    Args:
        gradient: of each batch, [M, P].
        reference: of an unbiased estimator from the same batches, [M, P].

    Returns:
        The trace of the covariance, the mean's component along the reference's mean (with the two
        taken from different halves, so that noise does not point the same way), and noise: the
        trace over the squared component, which no scaling of Ψ changes, with a 95 % interval.
    """
    half = len(gradient) // 2
    mean = reference[:half].mean(0), reference[half:].mean(0)
    along = np.concatenate(
        [
            gradient[:half] @ (mean[1] / np.linalg.norm(mean[1])),
            gradient[half:] @ (mean[0] / np.linalg.norm(mean[0])),
        ]
    )
    gram = gradient.astype(np.float64) @ gradient.T

    def trace(picked: NDArray) -> float:
        """The trace of the covariance of some batches."""
        part = gram[np.ix_(picked, picked)]
        return float((np.trace(part) - part.sum() / len(picked)) / (len(picked) - 1))

    everything = np.arange(len(gradient))
    generator = np.random.default_rng(0)
    resampled = []
    for _ in range(RESAMPLES):
        picked = generator.choice(everything, len(everything))
        resampled.append(trace(picked) / along[picked].mean() ** 2)
    return {
        "trace": trace(everything),
        "along_reference": float(along.mean()),
        "noise": trace(everything) / float(along.mean() ** 2),
        "noise_interval": np.quantile(resampled, [0.025, 0.975]).tolist(),
    }


def measure(item: tuple[str, Path], *, batches: int, critic_batches: int) -> dict[str, Any]:
    """Return every estimator's statistics in one environment, given its trained policy."""
    env, directory = item
    torch.set_num_threads(1)
    source = FixedPolicy(directory, episodes=EPISODES)
    source.fit_critics(critic_batches)
    estimators: dict[str, Estimator] = {
        label: make_estimator(name, **constants)
        for label, (_, name, constants) in ESTIMATORS.items()
        if constants.get("baseline") != "policy_mean" or source.discrete
    }
    rows, lengths, cut = [], [], 0
    for _ in range(batches):
        rollout = source.collect()
        advantages = [
            estimator(rollout, gamma=GAMMA)[0].detach() for estimator in estimators.values()
        ]
        rows.append(gradients(source.agent, rollout, advantages))
        lengths.append(float(rollout.mask.sum(0).float().mean()))
        cut += int(rollout.truncated.sum())
    gradient = np.stack(rows)  # [M, estimators, P]
    labels = list(estimators)
    reference = gradient[:, labels.index(REFERENCE)]
    return {
        "env": env,
        "batches": batches,
        "episode_length": float(np.mean(lengths)),
        "truncated_episodes": cut,
        "estimators": {
            label: statistics(gradient[:, number], reference) for number, label in enumerate(labels)
        },
    }


def draw(results: list[dict[str, Any]]) -> Figure:
    """Draw the noise of every estimator, one panel for each environment."""
    labels = list(ESTIMATORS)
    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True)
    for axes, result in zip(panels, results, strict=True):
        for label, numbers in result["estimators"].items():
            height, color = labels.index(label), COLORS[ESTIMATORS[label][0]]
            axes.plot(numbers["noise_interval"], [height] * 2, color=color, lw=1.4)
            axes.plot(numbers["noise"], height, "o", color=color, ms=5)
        axes.set_xscale("log")
        title = f"{result['env']}, episodes of {result['episode_length']:.0f} steps"
        tidy(axes, title=title, x="tr Cov(gradient) / ‖expected gradient‖²", y="")
    panels[0].set_yticks(range(len(labels)), labels, fontsize=8)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    handles = [Line2D([], [], marker="o", ls="", color=c, label=k) for k, c in COLORS.items()]
    panels[-1].legend(handles=handles, fontsize=8)
    figure.suptitle(
        f"Variance of the policy gradient of {EPISODES} episodes, by Ψ "
        f"(fixed policy, γ = 1, groups of {GROUP_SIZE}, {results[0]['batches']} batches)",
        fontsize=10,
    )
    return figure


def main() -> None:
    """Train a policy for each environment, measure its gradients and draw."""
    study: Study = parse(__file__, __doc__)
    directories = train(
        study,
        {
            env: ["algo=ppo", f"env={env}", f"total_steps={2048 if study.quick else steps}"]
            for env, steps in PRETRAINING.items()
        },
    )
    work = partial(
        measure,
        batches=6 if study.quick else BATCHES,
        critic_batches=2 if study.quick else CRITIC_BATCHES,
    )
    items = list(directories.items())
    results = side_by_side(study, work, items)
    study.write({"gamma": GAMMA, "episodes": EPISODES, "environments": results}, draw(results))


if __name__ == "__main__":
    main()
