"""The body of actor-critic methods: policy and critics take their steps on the same minibatches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.data.minibatches import Minibatches, all_rows, cut, take
from rlrun.data.rollout import Rollout
from rlrun.data.sequences import Observations
from rlrun.errors import UserError
from rlrun.learning.agent import Agent, AgentSettings, refuse_second_ratio
from rlrun.learning.autograd import learner_of
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction, Trainable
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.metrics import explained_variance, summarize
from rlrun.learning.optimizers import Optimizer


class PolicyBatch(NamedTuple):
    """B rows of a rollout for the policy.

    Attributes:
        obs: [B, D], or steps of sequences.
        action: [B] or [B, A].
        logp: log μ(a|s), [B].
        advantage: Ψ, [B].
        weight: w, importance of what was not drawn from the policy as it is, [B]; else 1.
    """

    obs: Observations
    action: Tensor
    logp: Tensor
    advantage: Tensor
    weight: Tensor


def policy_example(agent: Agent, size: int) -> PolicyBatch:
    """Return a minibatch of B rows to compile for."""
    obs, action, zeros = agent.example(size)
    return PolicyBatch(obs, action, zeros, zeros, zeros)


@dataclass(frozen=True)
class Epochs:
    """How a rollout is gone over.

    Attributes:
        count: passes over it.
        minibatch_size: rows of a step; None: all of them.
        recompute: judge the rollout and estimate Ψ anew before each further pass.
        normalized: whether the advantages of a minibatch are brought to mean 0.
    """

    count: int = 1
    minibatch_size: int | None = None
    recompute: bool = False
    normalized: bool = False

    def __post_init__(self):
        """Refuse minibatches of one row, whose advantage would be normalised to 0."""
        if self.normalized and self.minibatch_size == 1:
            raise UserError("algo.minibatch_size must be at least 2 to normalize_advantage, got 1")


class Epoch(NamedTuple):
    """One pass over a rollout.

    Attributes:
        rows: of its minibatches, numbers into the flattened rollout, [M, B].
        advantage: Ψ, [T, N].
        target: value target, [T, N].
    """

    rows: Minibatches
    advantage: Tensor
    target: Tensor


class ActorCriticAlgorithm(AgentSettings, Protocol):
    """What an algorithm brings to its body.

    Attributes:
        optimizer: of the policy.
    """

    @property
    def optimizer(self) -> Optimizer: ...  # noqa: D102

    def policy_loss(self, policy: PolicyFunction, batch: Any) -> LossAndMetrics:
        """Return the loss of a minibatch."""
        ...


# All rows of a rollout, once.
ONE_STEP = Epochs()


class ActorCriticUpdate:
    """Fits a policy and its critics, which share no parameters, at the same time.

    Attributes:
        agent: whose networks they are.
        learners: of the policy and of the critics.
        parts: what else decides the future.
    """

    def __init__(
        self,
        context: Context,
        algorithm: ActorCriticAlgorithm,
        epochs: Epochs = ONE_STEP,
        *,
        critic_optimizer: Optimizer | None = None,
        value_clip: float | None = None,
        example: Callable[[Agent, int], Any] = policy_example,
    ):
        """Make the agent and its learners.

        Args:
            context: the other parts of the run.
            algorithm: its hyperparameters and its loss.
            epochs: how a rollout is gone over.
            critic_optimizer: of the critics; None: one like the policy's.
            value_clip: the largest rewarded change of a V(s); None: unlimited.
            example: agent, size -> a minibatch of the loss's kind, to compile for.

        Raises:
            UserError: some rows of a segment would be left out of its minibatches, or a recomputed
                Ψ would weigh each step twice.
        """
        shape = context.shape
        size = epochs.minibatch_size or shape.rows
        self.agent = agent = Agent(context, algorithm, critics=True)
        if epochs.recompute:
            refuse_second_ratio(agent)
        self._epochs, self._minibatch_size = epochs, size
        self._shuffle = context.streams.minibatch
        self._side_by_side = context.hardware.side_by_side()
        policy, learner = agent.networks.policy, learner_of(shape)
        self.policy = learner(policy, algorithm.policy_loss, algorithm.optimizer)
        self.critics = Critics(
            agent.networks,
            optimizer=critic_optimizer or algorithm.optimizer,
            value_clip=value_clip,
            learner=learner,
        )
        self.learners: dict[str, Trainable] = {"policy": self.policy, "critics": self.critics}
        self.parts = agent.parts
        count = shape.minibatches(size)
        # Whole rollouts of whole episodes differ in size, and so do minibatches of sequences.
        alike = epochs.minibatch_size is not None or not shape.whole_episodes
        if alike and not shape.sequences:
            rate = epochs.count / size
            self.policy.expect(example(agent, size), rate=rate, minibatches=count)
            obs, action, zeros = agent.example(size)
            batch = CriticBatch(obs, action, zeros, zeros)
            self.critics.expect(batch, rate=rate, minibatches=count)

    def epochs(self, rollout: Rollout, estimate: tuple[Tensor, Tensor]) -> Iterator[Epoch]:
        """Go over a rollout several times, in minibatches that are shuffled anew.

        Args:
            rollout: as it was judged at collection.
            estimate: its Ψ and value target.
        """
        for number in range(self._epochs.count):
            if self._epochs.recompute and number > 0:
                estimate = self.agent.estimate(self.agent.judge(rollout))
            rows = cut(rollout, size=self._minibatch_size, generator=self._shuffle)
            yield Epoch(rows, *estimate)

    @torch.no_grad()
    def one_step(self, rollout: Rollout, progress: float) -> Metrics:
        """Take one step of policy and critics on all rows of a rollout.

        Both Ψ and the target are from the critics as they were, and held constant.
        """
        advantage, target = self.agent.estimate(rollout)
        metrics = self.fit(rollout, Epoch(all_rows(rollout.mask), advantage, target), progress)
        return {
            **summarize([metrics]),
            **explained_variance(rollout, target),
            "schedule/learning_rate": self.policy.rate(progress),
        }

    def fit(
        self, rollout: Rollout, epoch: Epoch, progress: float, *, batches: Any = None
    ) -> Metrics:
        """Take one step of policy and critics on each minibatch of an epoch.

        Args:
            rollout: as it was judged at collection.
            epoch: its minibatches, Ψ and target.
            progress: share of the run's steps done, for the step sizes.
            batches: what the policy learns from, [M, B, …]; None: a `PolicyBatch` of the epoch.

        Returns:
            What the losses log, each [M].
        """
        if batches is None:
            columns = (rollout.obs, rollout.action, rollout.logp, epoch.advantage, rollout.weight)
            batches = PolicyBatch(*take(epoch.rows, *columns))
        targets = critic_batches(rollout, epoch.target, epoch.rows)
        policy_metrics, critic_metrics = self._side_by_side(
            partial(self.policy.fit, batches, self.policy.rate(progress)),
            partial(self.critics.fit, targets, progress),
            compiled=self.policy.is_compiled,
        )
        return policy_metrics | critic_metrics
