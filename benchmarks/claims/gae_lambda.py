"""Claim 1: λ of GAE trades the bias of the critic against the variance of the rewards.

    python benchmarks/claims/gae_lambda.py

On a random Markov decision process whose advantages are known exactly, bias and variance of GAE
follow from linear algebra (the lines), and are measured on rollouts by rlrun's own estimator (the
dots). On Hopper, PPO is trained with each λ.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from common import COLORS, make_estimator, over_seeds, parse, plot_over_seeds, tidy, train
from common import final_return as final_return_of
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlrun.data.rollout import Rollout

STATES, ACTIONS, SUCCESSORS = 20, 4, 3
GAMMA = 0.95
# Standard deviation of the critic's error, in units of that of V over states.
ERRORS = (0.0, 0.25, 0.5, 1.0)
LAMBDAS = tuple(np.linspace(0, 1, 21).tolist())
SAMPLED_LAMBDAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
# Samples of each (s, a) whose mean is judged: they divide the variance, not the bias.
SAMPLES = 64
# After so many steps the discount has left less than 1e-6 of a reward.
FORGOTTEN = 280
ENV, STEPS, SEEDS = "hopper", 200_000, (0, 1, 2)
TRAINED_LAMBDAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0)


class Process(NamedTuple):
    """A Markov decision process with S states and A actions, under a fixed policy.

    Attributes:
        transition: P(s'|s, a), [S, A, S].
        reward: r(s, a), [S, A].
        policy: π(a|s), [S, A].
        visits: how often (s, a) occurs in the long run, [S, A].
        value: V(s), [S].
        advantage: A(s, a), [S, A].
    """

    transition: NDArray
    reward: NDArray
    policy: NDArray
    visits: NDArray
    value: NDArray
    advantage: NDArray


def make_process(generator: np.random.Generator) -> Process:
    """Draw a process (a "Garnet", Bhatnagar et al. 2009) and solve it exactly."""
    transition = np.zeros((STATES, ACTIONS, STATES))
    for s in range(STATES):
        for a in range(ACTIONS):
            successors = generator.choice(STATES, SUCCESSORS, replace=False)
            transition[s, a, successors] = generator.dirichlet(np.ones(SUCCESSORS))
    reward = generator.normal(size=(STATES, ACTIONS))
    policy = generator.dirichlet(np.ones(ACTIONS), size=STATES)
    chain = np.einsum("sa,sat->st", policy, transition)  # P(s'|s)
    value = np.linalg.solve(np.eye(STATES) - GAMMA * chain, (policy * reward).sum(1))
    # d = d P, Σ d = 1
    equations = np.vstack([chain.T - np.eye(STATES), np.ones(STATES)])
    stationary = np.linalg.lstsq(equations, np.append(np.zeros(STATES), 1.0), rcond=None)[0]
    return Process(
        transition=transition,
        reward=reward,
        policy=policy,
        visits=stationary[:, None] * policy,
        value=value,
        advantage=reward + GAMMA * transition @ value - value[:, None],
    )


class Moments(NamedTuple):
    """How an estimate differs from the exact advantage, averaged over the visited (s, a).

    Attributes:
        bias: mean square of E[Â|s, a] − A(s, a).
        action_bias: of its part that differs between the actions of a state. The other part is a
            baseline, which leaves the expected gradient as it is.
        variance: mean of Var[Â|s, a].
    """

    bias: float
    action_bias: float
    variance: float


def exact_moments(process: Process, critic: NDArray, lam: float) -> Moments:
    """Solve for the moments of GAE.

    Args:
        process: the truth.
        critic: V of the estimator, [S].
        lam: λ.

    With δ(s, a, s') = r + γ V(s') − V(s) and Â = δ + γλ Â', mean g and second moment m of Â in a
    state solve one linear system each.
    """
    transition, policy = process.transition, process.policy
    chain, decay = np.einsum("sa,sat->st", policy, transition), GAMMA * lam
    delta = process.reward[..., None] + GAMMA * critic - critic[:, None, None]  # [S, A, S]

    def expect(x: NDArray) -> NDArray:
        """[S, A, S] -> its mean over s', [S, A]."""
        return (transition * x).sum(-1)

    identity = np.eye(STATES)
    g = np.linalg.solve(identity - decay * chain, (policy * expect(delta)).sum(1))
    known = expect(delta**2 + 2 * decay * delta * g)
    m = np.linalg.solve(identity - decay**2 * chain, (policy * known).sum(1))
    mean = expect(delta + decay * g)
    variance = known + decay**2 * transition @ m - mean**2
    bias = mean - process.advantage
    action_bias = bias - (policy * bias).sum(1, keepdims=True)
    return Moments(*((process.visits * x).sum() for x in (bias**2, action_bias**2, variance)))


def sample_rollout(process: Process, generator: np.random.Generator, *, steps: int, columns: int):
    """Let the policy act; return the rollout without values, and its states [T + 1, N]."""

    def draw(weights: NDArray) -> NDArray:
        """[N, K] -> N choices among K."""
        return (weights.cumsum(1) > generator.random((len(weights), 1))).argmax(1)

    state = generator.choice(STATES, columns, p=process.visits.sum(1))
    visited, taken = [state], []
    for _ in range(steps):
        action = draw(process.policy[state])
        state = draw(process.transition[state, action])
        visited.append(state)
        taken.append(action)
    states, actions = np.array(visited), np.array(taken)
    reward = torch.from_numpy(process.reward[states[:-1], actions])
    obs, never = torch.zeros(steps, columns, 0), torch.zeros(steps, columns, dtype=torch.bool)
    rollout = Rollout(
        obs=obs,
        next_obs=obs,
        raw_obs=obs,
        action=torch.from_numpy(actions),
        logp=torch.from_numpy(np.log(process.policy[states[:-1], actions])),
        reward=reward,
        raw_reward=reward,
        terminated=never,
        truncated=never,
        mask=~never,
        whole_episodes=False,
        group=None,
    )
    return rollout, states


def measured_moments(
    process: Process, rollout: Rollout, states: NDArray, critic: NDArray, lam: float
) -> Moments:
    """Measure the moments of rlrun's GAE on a rollout, whose states are [T + 1, N]."""
    value = torch.from_numpy(critic[states])  # [T + 1, N]
    judged = replace(rollout, columns={"value": value[:-1], "next_value": value[1:]})
    advantage, _ = make_estimator("gae", lam=lam)(judged, gamma=GAMMA)
    kept = len(advantage) - FORGOTTEN
    estimate = advantage[:kept].numpy().ravel()
    pair = (states[:kept] * ACTIONS + rollout.action[:kept].numpy()).ravel()
    shape = (STATES, ACTIONS)

    def total(weights: NDArray | None) -> NDArray:
        """Sum weights over the rows of each (s, a), [S, A]."""
        return np.bincount(pair, weights, minlength=STATES * ACTIONS).reshape(shape)

    count = total(None)
    mean = total(estimate) / count
    variance = total(estimate**2) / count - mean**2
    bias = mean - process.advantage
    action_bias = bias - (process.policy * bias).sum(1, keepdims=True)
    # The mean of so many samples has a variance of its own, which is no bias.
    own = variance / count
    squares = (bias**2 - own, action_bias**2 - (1 - process.policy) * own, variance)
    return Moments(*((process.visits * x).sum() for x in squares))


def root(square: float) -> float:
    """Return the root of a mean square, whose estimate may lie below 0."""
    return float(np.sqrt(max(square, 0.0)))


def solve_and_sample(quick: bool) -> dict:
    """Return exact and measured bias and standard deviation, in units of that of A."""
    generator = np.random.default_rng(0)
    process = make_process(generator)
    noise = generator.normal(size=STATES)
    noise = (noise - noise.mean()) / noise.std()
    unit = np.sqrt((process.visits * process.advantage**2).sum())
    steps, columns = FORGOTTEN + (200 if quick else 1000), 200 if quick else 2000
    rollout, states = sample_rollout(process, generator, steps=steps, columns=columns)
    result = {}
    for error in ERRORS:
        critic = process.value + error * process.value.std() * noise
        exact = [exact_moments(process, critic, lam) for lam in LAMBDAS]
        measured = [
            measured_moments(process, rollout, states, critic, lam) for lam in SAMPLED_LAMBDAS
        ]
        result[str(error)] = {
            kind: {
                "lambda": lambdas,
                "bias": [root(each.bias) / unit for each in moments],
                "action_bias": [root(each.action_bias) / unit for each in moments],
                "std": [root(each.variance) / unit for each in moments],
                "rms_error_of_mean": [
                    root(each.action_bias + each.variance / SAMPLES) / unit for each in moments
                ],
            }
            for kind, lambdas, moments in (
                ("exact", LAMBDAS, exact),
                ("measured", SAMPLED_LAMBDAS, measured),
            )
        }
    return result


def main() -> None:
    """Solve, sample, train and draw."""
    study = parse(__file__, __doc__)
    errors = solve_and_sample(study.quick)
    steps = 4096 if study.quick else STEPS
    lambdas, seeds = (TRAINED_LAMBDAS[::3], (0,)) if study.quick else (TRAINED_LAMBDAS, SEEDS)
    directories = train(
        study,
        {
            f"lambda_{lam}_s{seed}": [
                "algo=ppo",
                f"env={ENV}",
                f"advantage.lam={lam}",
                f"seed={seed}",
                f"total_steps={steps}",
                "evaluation.every_steps=10_000",
            ]
            for lam in lambdas
            for seed in seeds
        },
    )
    returns = [
        over_seeds([final_return_of(directories[f"lambda_{lam}_s{seed}"]) for seed in seeds])
        for lam in lambdas
    ]
    result = {
        "process": {"states": STATES, "actions": ACTIONS, "gamma": GAMMA, "critic_error": errors},
        "training": {"env": ENV, "steps": steps, "lambda": lambdas, "return": returns},
    }

    figure = Figure(figsize=(13, 3.4), dpi=120, layout="constrained")
    panels = figure.subplots(1, 4)
    kinds = {
        "action_bias": "bias between the actions of a state",
        "std": "standard deviation of one sample",
        "rms_error_of_mean": f"RMS error of the mean of {SAMPLES} samples",
    }
    for axes, (kind, label) in zip(panels, kinds.items(), strict=False):
        for (error, figures), color in zip(errors.items(), COLORS, strict=False):
            exact, measured = figures["exact"], figures["measured"]
            axes.plot(exact["lambda"], exact[kind], color=color, label=f"{float(error):.0%}")
            axes.plot(measured["lambda"], measured[kind], "o", color=color, ms=4)
        tidy(axes, title=label, x="λ", y="in units of the RMS of A(s, a)")
    panels[0].legend(title="critic's error", fontsize=8, title_fontsize=8)
    plot_over_seeds(panels[3], lambdas, returns, color=COLORS[0], label="PPO")
    tidy(panels[3], title=f"PPO on Hopper, {steps:,} steps", x="λ", y="final return")
    figure.suptitle(
        "GAE: a larger λ takes away the critic's bias and brings variance "
        "(random MDP; lines: exact, dots: rlrun's estimator on rollouts)",
        fontsize=10,
    )
    study.write(result, figure)


if __name__ == "__main__":
    main()
