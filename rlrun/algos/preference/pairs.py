"""The body of the algorithms on pairs: a better response and a worse one to the same prompt.

The reference writes several responses to a prompt, of which the judge makes a pair
(``collector=generation``), or a file has pairs (``collector=pairs``), which are groups of two.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.algos.preference.imitation import agent_of, reference_of
from rlrun.data.groups import return_spreads
from rlrun.data.minibatches import take_columns
from rlrun.data.rollout import Transitions
from rlrun.data.sequences import Observations
from rlrun.errors import UserError
from rlrun.learning.autograd import learner_of
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.metrics import summarize
from rlrun.learning.optimizers import Optimizer
from rlrun.models.language.answer_key import Author
from rlrun.models.language.networks import TokenPolicy


class PairBatch(NamedTuple):
    """n pairs: the better responses in the first n columns, the worse ones in the others.

    Attributes:
        obs: 2n sequences.
        action: tokens, [T, 2n].
        mask: tokens that count, [T, 2n].
        reference_logp: log π_ref of them, [T, 2n].
    """

    obs: Observations
    action: Tensor
    mask: Tensor
    reference_logp: Tensor


class PairAlgorithm(Protocol):
    """What an algorithm on pairs brings to its body.

    Attributes:
        reference: run or checkpoint of π_ref; None: that which the run begins as.
        length_normalized: whether log-ratios are means over tokens, and not sums.
    """

    reference: str | None
    length_normalized: bool

    @property
    def optimizer(self) -> Optimizer: ...  # noqa: D102

    def policy_loss(self, policy: PolicyFunction, batch: Any) -> LossAndMetrics:
        """Return the loss of a minibatch of pairs."""
        ...


class PairUpdate:
    """Takes a step on the pairs of an iteration: of each group the best response and the worst.

    Attributes:
        agent: the policy.
        learners: what fits it.
        parts: what else decides the future.
    """

    def __init__(self, context: Context, algorithm: PairAlgorithm, name: str):
        """Build the policy and what fits it.

        Args:
            context: the other parts of the run.
            algorithm: its hyperparameters and its loss.
            name: of the algorithm, for messages.

        Raises:
            UserError: there are no groups of responses, or there is no reference.
        """
        self.agent = agent_of(context, name, recorded=True)
        if context.shape.group_size < 2:
            raise UserError(f"{name} compares responses to one prompt: collector.group_size=8, say")
        self._group_size = context.shape.group_size
        self._generator = context.streams.action
        self.reference = reference_of(context, algorithm.reference, name, self.agent.device)
        self.policy = learner_of(context.shape)(
            self.agent.networks.policy, algorithm.policy_loss, algorithm.optimizer
        )
        self.learners = {"policy": self.policy}
        self.parts = {**self.agent.parts, "reference": self.reference}

    @property
    def author(self) -> Author:
        """Who writes what is compared: the reference."""
        assert isinstance(self.reference.policy, TokenPolicy)
        return Author(self.reference.policy, self._generator, self.agent.device)

    @torch.no_grad()
    def update(self, transitions: Transitions, progress: float) -> Metrics:
        """Take a step on the pairs among what was written; none where all groups tie."""
        rollout = self.agent.rollout(transitions)
        chosen = best_and_worst(rollout.raw_reward, rollout.mask, self._group_size)
        pairs = chosen.shape[1]
        if pairs == 0:
            return {"updates": torch.tensor(0), "pairs/count": torch.tensor(0.0)}
        logp = self.reference(rollout.obs).log_prob(rollout.action)
        columns = (rollout.obs, rollout.action, rollout.mask, logp)
        batches = PairBatch(*take_columns(chosen.view(1, -1), *columns))
        rate = self.policy.rate(progress)
        return {
            **summarize([self.policy.fit(batches, rate)]),
            "pairs/count": torch.tensor(float(pairs)),
            "schedule/learning_rate": rate,
        }


def setup(self: Any, context: Context) -> None:
    """Build the policy and what fits it: the `setup` of every algorithm here."""
    self.body = PairUpdate(context, self, type(self).__name__.lower())
    self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts


def update(self: Any, transitions: Transitions, *, progress: float) -> Metrics:
    """Take a step on pairs: the `update` of every algorithm here."""
    return self.body.update(transitions, progress)


def author(self: Any) -> Author:
    """Return who writes what is compared: the `author` of every algorithm here."""
    return self.body.author


def best_and_worst(reward: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Return the numbers of the best and the worst response of each group that has both, [2, n].

    Args:
        reward: of whole responses, the members of a group side by side, [T, N].
        mask: steps that count, [T, N].
        group_size: members of a group.
    """
    spread = return_spreads(reward, mask, group_size) > 0
    returns = (reward * mask).sum(0).view(-1, group_size)
    first = torch.arange(len(returns), device=reward.device) * group_size
    return torch.stack([first + returns.argmax(1), first + returns.argmin(1)])[:, spread]


def log_ratios(
    policy: PolicyFunction, batch: PairBatch, *, length_normalized: bool
) -> tuple[Tensor, Tensor]:
    """Return log π_θ(y)/π_ref(y) of the better and of the worse responses, [n] each.

    Args:
        policy: π_θ.
        batch: n pairs.
        length_normalized: whether it is a mean over a response's tokens, and not the sum.
    """
    logp = policy(batch.obs).log_prob(batch.action)
    total = torch.where(batch.mask, logp - batch.reference_logp, 0.0).sum(0)
    if length_normalized:
        total = total / batch.mask.sum(0)
    better, worse = total.chunk(2)
    return better, worse


def pair_metrics(loss: Tensor, better: Tensor, worse: Tensor, beta: float) -> Metrics:
    """Say how far pairs are told apart, for the logs."""
    return {
        "loss/policy": loss,
        "pairs/margin": beta * (better - worse).mean(),
        "pairs/accuracy": (better > worse).float().mean(),
        "pairs/better_log_ratio": better.mean(),
        "pairs/worse_log_ratio": worse.mean(),
    }
