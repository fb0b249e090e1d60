"""Minibatches of whole episodes: what the algorithms that compare episodes of a group share."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.errors import UserError
from rlrun.learner import Learner
from rlrun.metrics import summarize
from rlrun.objectives import approximate_kl, ratio_metrics
from rlrun.problem import Problem
from rlrun.ranges import at_least, positive, positive_or_infinite
from rlrun.rollout import minibatches

# Largest logarithm of an episode's ratio that is passed on: hundreds of small changes may multiply
# to more than a float holds (verl bounds the logarithms of single tokens' ratios so).
LARGEST_LOG_RATIO = 20.0


class EpisodeBatch(NamedTuple):
    """n whole episodes of at most T steps for the policy.

    Attributes:
        obs: [T, n, D].
        action: [T, n] or [T, n, A].
        logp: log π_old(a|s), [T, n].
        advantage: Â, [T, n].
        weight: w of each step in the loss, 0 behind the end of an episode, [T, n].
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor
    weight: Tensor


class EpisodeSettings(Protocol):
    """The hyperparameters that the algorithms on groups of episodes share.

    Attributes:
        num_envs: N, episodes of an iteration.
        horizon: T, steps at most; None: as many as an episode can have.
        epochs: passes over the episodes of an iteration.
        episodes_per_minibatch: n, episodes of one gradient step.
        learning_rate: step size of Adam at the start.
        adam_epsilon: Adam's ε.
        max_grad_norm: largest norm of the gradient.
        entropy_coefficient: weight of the entropy bonus.
    """

    num_envs: int
    horizon: int | None
    epochs: int
    episodes_per_minibatch: int
    learning_rate: float
    adam_epsilon: float
    max_grad_norm: float
    entropy_coefficient: float


def check_episode_settings(settings: EpisodeSettings) -> None:
    """Refuse values out of range.

    Raises:
        ValueError: names the first of them.
    """
    at_least(1, epochs=settings.epochs, episodes_per_minibatch=settings.episodes_per_minibatch)
    positive(learning_rate=settings.learning_rate, adam_epsilon=settings.adam_epsilon)
    positive_or_infinite(max_grad_norm=settings.max_grad_norm)
    at_least(0, entropy_coefficient=settings.entropy_coefficient)
    if settings.num_envs % settings.episodes_per_minibatch:
        raise ValueError(
            f"episodes_per_minibatch must divide num_envs={settings.num_envs}, "
            f"got {settings.episodes_per_minibatch}"
        )


def longest_episode(problem: Problem, settings: EpisodeSettings, *, name: str) -> int:
    """Return the steps of the longest episode.

    Args:
        problem: what is to be learned.
        settings: the algorithm's hyperparameters.
        name: what the algorithm is called, for messages.

    Raises:
        UserError: rollouts are not whole episodes, or do not fit.
    """
    if not problem.whole_episodes:
        raise UserError(f"{name} learns from whole episodes: env.group_size=8, say")
    return problem.rollout_length(settings.horizon, settings.num_envs)


def shuffled_episodes(mask: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Shuffle the episodes that have a step and cut them into minibatches.

    Args:
        mask: steps that count, [T, N].
        size: episodes a minibatch; if there are fewer altogether, they are one minibatch.
        generator: source of the shuffle (CPU).

    Returns:
        Numbers of episodes, [M, n]. A remainder smaller than a minibatch is left out.
    """
    return minibatches(mask.any(0, keepdim=True), size=size, generator=generator)


def take_episodes(episodes: Tensor, *columns: Tensor) -> list[Tensor]:
    """Return these episodes [M, n] of columns [T, N, …], each as [M, T, n, …]."""
    return [column[:, episodes].movedim(1, 0) for column in columns]


def fit_epochs(
    learner: Learner,
    make_batches: Callable[[Tensor], Any],
    mask: Tensor,
    *,
    epochs: int,
    size: int,
    learning_rate: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Take the steps of an update: several passes over the episodes, shuffled anew for each.

    Args:
        learner: takes them.
        make_batches: numbers of episodes [M, n] -> their minibatches, [M, …].
        mask: steps that count, [T, N].
        epochs: passes.
        size: n, episodes a minibatch.
        learning_rate: step size, [].
        generator: source of the shuffles (CPU).

    Returns:
        What the loss logs, of all minibatches, each [], and ``updates``, their number.
    """
    history, updates = [], 0
    for _ in range(epochs):
        episodes = shuffled_episodes(mask, size=size, generator=generator)
        history.append(learner.fit(make_batches(episodes), learning_rate))
        updates += len(episodes)
    return summarize(history) | {"updates": torch.tensor(updates)}


def minibatch_weights(weight: Tensor, *, size: int) -> Tensor:
    """Return the weights with which the loss of a minibatch is Σ w ℓ, [T, N].

    Scaled by (number of all episodes) / n: the mean loss of the minibatches is that of the whole
    update, and each alone is an unbiased estimate of it.

    Args:
        weight: w of all episodes of the update (:func:`rlrun.aggregation.step_weights`), [T, N].
        size: n, episodes a minibatch.
    """
    return weight * ((weight > 0).any(0).sum() / size)


def bounded(episode_log_ratio: Tensor) -> Tensor:
    """Return logarithms of whole episodes' ratios, [n], within what floats can multiply with."""
    return episode_log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def of_each_step(episode: Tensor, log_ratio: Tensor) -> Tensor:
    """Give each step the ratio of its whole episode, and the gradient of its own.

    ρ_it = sg(ρ_i) · exp(Δ_it − sg(Δ_it)), "GSPO-token" (Zheng et al. 2025, §4.3). With an
    advantage A that is the same in all steps of an episode, Σ_t ρ_it A has the gradient of ρ_i A
    for ρ_i = exp Σ_t Δ_it; but the advantage may also differ between steps.

    Args:
        episode: log ρ_i, [n].
        log_ratio: Δ = log π_θ(a|s) − log π_old(a|s), [T, n].

    Returns:
        log ρ_it, [T, n].
    """
    return episode.detach() + (log_ratio - log_ratio.detach())


def policy_metrics(
    log_ratio: Tensor, entropy: Tensor, *, ratio: Tensor, clip: float, clip_high: float
) -> dict[str, Tensor]:
    """Say how far the policy has moved, for the logs.

    Args:
        log_ratio: log π_θ(a|s) − log π_old(a|s) of the steps that count, [B].
        entropy: H(π) at each of them, [B].
        ratio: logarithms of the ratios that the algorithm clips: the same, or one an episode.
        clip: ε of the band below ratio 1.
        clip_high: ε of the band above it.
    """
    return {
        "policy/entropy": entropy.mean(),
        "policy/kl": approximate_kl(log_ratio),
        **ratio_metrics(ratio, clip, clip_high),
    }
