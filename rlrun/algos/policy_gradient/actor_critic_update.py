"""The body of actor-critic methods: policy and critics take their steps on the same minibatches."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from rlrun.data.minibatches import all_rows, minibatches
from rlrun.data.rollout import Rollout
from rlrun.learning.agent import Agent, AgentSettings
from rlrun.learning.contract import Context
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.learner import Learner, Loss
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


def policy_example(agent: Agent, size: int) -> PolicyBatch:
    """Return a minibatch of B rows to compile for."""
    obs, action, zeros = agent.example(size)
    return PolicyBatch(obs, action, zeros, zeros)


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
        agent: whose networks they are.
        learners: of the policy and of the critics.
    """

    def __init__(
        self,
        context: Context,
        settings: AgentSettings,
        policy_loss: Loss,
        optimizer: Optimizer,
        minibatch_size: int | None = None,
        *,
        critic_optimizer: Optimizer | None = None,
        value_clip: float | None = None,
        example: Callable[[Agent, int], Any] = policy_example,
    ):
        """Make the learners.

        Args:
            context: the other parts of the run.
            settings: the algorithm's hyperparameters.
            policy_loss: the policy with its parameters, and a minibatch -> loss and metrics.
            optimizer: of the policy.
            minibatch_size: rows of a step; None: all of a rollout.
            critic_optimizer: of the critics; None: one like the policy's.
            value_clip: the largest rewarded change of a V(s); None: unlimited.
            example: agent, size -> a minibatch of the loss's kind, to compile for.

        Raises:
            UserError: some rows of a segment would be left out of its minibatches.
        """
        shape, hardware = context.shape, context.hardware
        size = minibatch_size or shape.rows
        self.agent = agent = Agent(context, settings, critics=True)
        self._minibatch_size = size
        self._shuffle = context.streams.minibatch
        self._run_both = hardware.run_both
        count = shape.minibatches(size)
        self.policy = Learner(
            agent.networks.policy, policy_loss, minibatches=count, optimizer=optimizer
        )
        self.critics = Critics(
            agent.networks,
            minibatches=count,
            optimizer=critic_optimizer or optimizer,
            value_clip=value_clip,
        )
        self.learners = {"policy": self.policy, "critics": self.critics}
        # Whole rollouts of whole episodes differ in size.
        if context.compiled and not (minibatch_size is None and shape.whole_episodes):
            obs, action, zeros = agent.example(size)
            self.policy.compile(hardware.compiled, example(agent, size))
            self.critics.compile(hardware, CriticBatch(obs, action, zeros, zeros))

    def passes(
        self,
        rollout: Rollout,
        estimate: tuple[Tensor, Tensor],
        *,
        epochs: int,
        recompute: bool = False,
    ) -> Iterator[Pass]:
        """Go over a rollout several times, in minibatches that are shuffled anew.

        Args:
            rollout: as it was judged at collection.
            estimate: its Ψ and value target.
            epochs: passes.
            recompute: judge the rollout and estimate Ψ anew before each further pass.
        """
        for epoch in range(epochs):
            if recompute and epoch > 0:
                estimate = self.agent.estimate(self.agent.judge(rollout))
            rows = minibatches(rollout.mask, size=self._minibatch_size, generator=self._shuffle)
            yield Pass(rows, *estimate)

    def whole(self, rollout: Rollout) -> Pass:
        """Take all rows of a rollout at once, in their order."""
        return Pass(all_rows(rollout.mask), *self.agent.estimate(rollout))

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
