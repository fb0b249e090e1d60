"""The body of the algorithms on groups: several passes over episodes, in minibatches of them."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.data.groups import pad
from rlrun.data.minibatches import shuffled_episodes, take_columns
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Rollout, Transitions
from rlrun.data.sequences import Observations
from rlrun.errors import UserError
from rlrun.learning.agent import Agent
from rlrun.learning.autograd import learner_of
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.aggregation import Aggregation, minibatch_weights, step_weights
from rlrun.learning.losses.reference_kl import NO_PENALTY, ReferenceKL
from rlrun.learning.losses.reference_penalty import penalty_of
from rlrun.learning.metrics import policy_metrics, spread_metrics, summarize
from rlrun.learning.optimizers import Adam


class EpisodeBatch(NamedTuple):
    """n whole episodes of at most T steps for the policy.

    Attributes:
        obs: [T, n, D], or n sequences.
        action: [T, n] or [T, n, A].
        logp: log π_old(a|s), [T, n].
        advantage: Â, [T, n].
        weight: w of each step in the loss, 0 behind the end of an episode, [T, n].
        reference_logp: log π_ref(a|s), [T, n].
        kl_coefficient: β, the same everywhere, [T, n]: compiled code takes it as an input.
    """

    obs: Observations
    action: Tensor
    logp: Tensor
    advantage: Tensor
    weight: Tensor
    reference_logp: Tensor
    kl_coefficient: Tensor


class Steps(NamedTuple):
    """What a policy says of the steps of a minibatch, each [T, n].

    Attributes:
        counts: steps that are not behind the end of an episode.
        log_ratio: log π_θ(a|s) − log π_old(a|s), 0 where a step does not count.
        reference_log_ratio: log π_θ(a|s) − log π_ref(a|s), likewise.
        entropy: H(π_θ).
    """

    counts: Tensor
    log_ratio: Tensor
    reference_log_ratio: Tensor
    entropy: Tensor


def compare(policy: PolicyFunction, batch: EpisodeBatch) -> Steps:
    """Compare a policy with the one that collected a minibatch, and with the reference."""
    distribution, counts = policy(batch.obs), batch.weight > 0
    logp = distribution.log_prob(batch.action)
    return Steps(
        counts,
        torch.where(counts, logp - batch.logp, 0.0),
        torch.where(counts, logp - batch.reference_logp, 0.0),
        distribution.entropy(),
    )


def step_metrics(steps: Steps, clip: float, clip_high: float | None = None) -> Metrics:
    """Say how far the policy has moved, for the logs: `policy_metrics` of the steps that count."""
    return policy_metrics(steps.log_ratio, steps.entropy, clip, clip_high, mask=steps.counts)


class EpisodeAlgorithm(Protocol):
    """What an algorithm on groups brings to its body: hyperparameters, and its loss.

    Attributes:
        num_envs: N, episodes of an iteration.
        gamma: discount γ of the return.
        epochs: passes over the episodes of an iteration.
        episodes_per_minibatch: n, episodes of one gradient step.
        aggregation: how the losses of steps become one.
        optimizer: takes the steps.
        normalization: what is brought to unit scale.
    """

    num_envs: int
    gamma: float
    epochs: int
    episodes_per_minibatch: int
    aggregation: Aggregation
    optimizer: Adam
    normalization: Normalization

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """Return the loss of a minibatch of episodes."""
        ...


class EpisodeUpdate:
    """Improves a policy on groups of whole episodes; there is no critic.

    Attributes:
        agent: the policy.
        learners: what fits it.
        parts: what else decides the future.
    """

    def __init__(
        self,
        context: Context,
        algorithm: EpisodeAlgorithm,
        *,
        kl: ReferenceKL = NO_PENALTY,
    ):
        """Build the policy and what fits it.

        Args:
            context: the other parts of the run.
            algorithm: its hyperparameters and its loss.
            kl: the penalty for leaving a reference policy.

        Raises:
            UserError: rollouts are not whole episodes, or some would be left out.
        """
        shape, size = context.shape, algorithm.episodes_per_minibatch
        if not shape.whole_episodes:
            raise UserError("this algorithm learns from whole episodes: collector=groups")
        if shape.num_envs % size:
            raise UserError(
                f"algo.episodes_per_minibatch must divide num_envs={shape.num_envs}, got {size}"
            )
        self._algorithm = algorithm
        self._shape = shape
        self._shuffle = context.streams.minibatch
        self.agent = Agent(context, algorithm, critics=False)
        self.penalty = penalty_of(kl, self.agent, context)
        self.policy = learner_of(shape)(
            self.agent.networks.policy, algorithm.policy_loss, algorithm.optimizer
        )
        self.learners = {"policy": self.policy}
        self.parts = {**self.agent.parts, **self.penalty.parts}
        if shape.sequences:
            return  # nothing of which is compiled
        # A compiled update takes episodes of these lengths; shorter ones are padded.
        self._lengths = [-(-shape.longest // part) for part in (8, 4, 2, 1)]
        rows = self.agent.example(shape.longest * size)
        obs, action, zeros = (column.unflatten(0, (shape.longest, size)) for column in rows)
        # As if all episodes were as long as can be, which makes the fewest steps.
        self.policy.expect(
            EpisodeBatch(obs, action, zeros, zeros, zeros, zeros, zeros),
            rate=algorithm.epochs / (size * shape.longest),
            minibatches=shape.num_envs // size,
            every_shape=True,
        )

    def update(self, rollout: Rollout, progress: float) -> Metrics:
        """Take the steps of an iteration, in several passes over its episodes.

        Args:
            rollout: whole episodes of the current policy, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            Means over the minibatches, each [], and ``updates``, their number: 0 where every
            episode was dropped (``collectors/dynamic_sampling.py``).
        """
        if not rollout.mask.any():
            return {"updates": torch.tensor(0)}
        algorithm = self._algorithm
        learning_rate = self.policy.rate(progress)
        penalised = self.penalty(rollout)
        advantage, _ = self.agent.estimate(penalised.rollout)
        # What an estimator says behind an episode's end may be NaN, which a weight of 0 lets in.
        advantage = torch.where(rollout.mask, rollout.weight * advantage, 0.0)
        weight = step_weights(rollout.mask, algorithm.aggregation, longest=self._shape.longest)
        length = len(rollout.mask)
        if self.policy.is_compiled:
            length = next(each for each in self._lengths if each >= length)
        history = []
        for _ in range(algorithm.epochs):
            episodes = shuffled_episodes(
                rollout.mask, size=algorithm.episodes_per_minibatch, generator=self._shuffle
            )
            whole = EpisodeBatch(
                rollout.obs,
                rollout.action,
                rollout.logp,
                advantage,
                minibatch_weights(weight, size=episodes.shape[1]),
                penalised.reference_logp,
                penalised.coefficient.expand_as(advantage),
            )
            columns = [pad(column, length) for column in whole]
            batches = EpisodeBatch(*take_columns(episodes, *columns))
            history.append(self.policy.fit(batches, learning_rate))
        self.penalty.grow_older()
        return {
            **summarize(history),
            **spread_metrics(rollout, self._shape.group_size),
            **penalised.metrics,
            "schedule/learning_rate": learning_rate,
        }


def setup(self: Any, context: Context) -> None:
    """Build the policy and what fits it: the `setup` of every algorithm here."""
    self.body = EpisodeUpdate(context, self, kl=self.kl)
    self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts


def update(self: Any, transitions: Transitions, *, progress: float) -> Metrics:
    """Improve the policy on groups of episodes: the `update` of every algorithm here."""
    return self.body.update(self.agent.rollout(transitions), progress)
