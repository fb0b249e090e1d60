"""The body of actor-critic methods: policy and critics take their steps on the same minibatches."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from rlrun.algos.agent import Agent
from rlrun.algos.contract import Context
from rlrun.data.minibatches import all_rows, minibatches
from rlrun.data.rollout import Rollout
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.learner import Loss, gradient_learner
from rlrun.learning.optimizers import Optimizer


class PolicyBatch(NamedTuple):
    """B rows of a rollout for the policy.

    Attributes:
        obs: [B, D].
        action: [B] or [B, A].
        logp: log μ(a|s), [B].
        advantage: Ψ, [B].
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor


class Pass(NamedTuple):
    """One pass over a rollout.

    Attributes:
        rows: of its minibatches, numbers into the flattened rollout, [M, B].
        advantage: Ψ, [T, N].
        target: value target, [T, N].
    """

    rows: Tensor
    advantage: Tensor
    target: Tensor


class ActorCriticUpdate:
    """Fits a policy and its critics, which share no parameters, at the same time.

    Attributes:
        learners: of the policy and of the critics.
    """

    def __init__(
        self,
        agent: Agent,
        context: Context,
        policy_loss: Loss,
        *,
        optimizer: Optimizer,
        critic_optimizer: Optimizer | None = None,
        epochs: int = 1,
        minibatch_size: int | None = None,
        value_clip: float | None = None,
        example: Any = None,
    ):
        """Make the learners.

        Args:
            agent: whose networks are fitted.
            context: the other parts of the run.
            policy_loss: the policy with its parameters, and a minibatch -> loss and metrics.
            optimizer: of the policy.
            critic_optimizer: of the critics; None: one like the policy's.
            epochs: passes over a rollout.
            minibatch_size: rows of a step; None: all of a rollout.
            value_clip: the largest rewarded change of a V(s); None: unlimited.
            example: a minibatch of the loss's kind; None: it is a `PolicyBatch`.

        Raises:
            UserError: some rows of a segment would be left out of its minibatches.
        """
        shape, hardware = context.shape, context.hardware
        size = minibatch_size or shape.rows
        self._agent = agent
        self._shuffle = context.streams.minibatch
        self._run_both = hardware.run_both
        self.policy = gradient_learner(agent.networks.policy, policy_loss, optimizer)
        self.critics = Critics(
            agent.networks, optimizer=critic_optimizer or optimizer, value_clip=value_clip
        )
        self.learners = {"policy": self.policy, "critics": self.critics}
        count = shape.minibatches(size)
        # Whole rollouts of whole episodes differ in size.
        if minibatch_size is not None or not shape.whole_episodes:
            obs, action, zeros = agent.example(size)
            if example is None:
                example = PolicyBatch(obs, action, zeros, zeros)
            rate = epochs / size
            self.policy.expect(example, rate=rate, minibatches=count)
            self.critics.expect(
                CriticBatch(obs, action, zeros, zeros), rate=rate, minibatches=count
            )

    def passes(
        self,
        rollout: Rollout,
        estimate: tuple[Tensor, Tensor],
        *,
        epochs: int,
        minibatch_size: int,
        recompute: bool = False,
    ) -> Iterator[Pass]:
        """Go over a rollout several times, in minibatches that are shuffled anew.

        Args:
            rollout: as it was judged at collection.
            estimate: its Ψ and value target.
            epochs: passes.
            minibatch_size: B, rows of a step.
            recompute: judge the rollout and estimate Ψ anew before each further pass.
        """
        for epoch in range(epochs):
            if recompute and epoch > 0:
                estimate = self._agent.estimate(self._agent.judge(rollout))
            rows = minibatches(rollout.mask, size=minibatch_size, generator=self._shuffle)
            yield Pass(rows, *estimate)

    def whole(self, rollout: Rollout) -> Pass:
        """Take all rows of a rollout at once, in their order."""
        return Pass(all_rows(rollout.mask), *self._agent.estimate(rollout))

    def fit(
        self,
        batches: Any,
        rollout: Rollout,
        over: Pass,
        *,
        learning_rate: Tensor,
        critic_learning_rate: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Take one step of policy and critics on each minibatch of a pass.

        Args:
            batches: what the policy learns from, [M, B, …].
            rollout: as it was judged at collection.
            over: the pass, whose rows and targets the critics take.
            learning_rate: step size, [].
            critic_learning_rate: step size of the critics, []; None: the same.

        Returns:
            What the losses log, each [M].
        """
        targets = critic_batches(rollout, over.target, over.rows)
        critic_rate = learning_rate if critic_learning_rate is None else critic_learning_rate
        policy_metrics, critic_metrics = self._run_both(
            partial(self.policy.fit, batches, learning_rate),
            partial(self.critics.fit, targets, critic_rate),
            compiled=self.policy.is_compiled,
        )
        return policy_metrics | critic_metrics
