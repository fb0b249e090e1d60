"""Minibatches of whole episodes: what the algorithms that compare episodes of a group share."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.config.types import at_least, positive, positive_or_infinite
from rlrun.data.minibatches import shuffled_episodes
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import summarize


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
