"""The body of the algorithms that raise the probability of what is written, each step by a weight.

In the unified view of Shao et al. 2024 ("DeepSeekMath", arXiv:2402.03300, §5.2),

    ∇J = E[ Σ_t w_t GC(q, o, t) ∇ log π_θ(o_t|q, o_<t) ],

they differ in who writes o, and in the gradient coefficient GC.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.data.minibatches import all_rows, take
from rlrun.data.normalize import Normalization
from rlrun.data.packing import Packed, pack
from rlrun.data.rollout import Rollout, Transitions
from rlrun.data.sequences import Observations, Sequences
from rlrun.errors import UserError
from rlrun.learning.agent import Agent
from rlrun.learning.autograd import learner_of
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.aggregation import Aggregation, step_weights
from rlrun.learning.metrics import summarize
from rlrun.learning.optimizers import Optimizer
from rlrun.models.language.networks import TokenPolicy
from rlrun.models.reference import Reference


class WeightedSteps(NamedTuple):
    """B steps of responses.

    Attributes:
        obs: steps of sequences, packed or not.
        action: tokens, [B].
        weight: w GC of each step, [B].
    """

    obs: Observations | Packed
    action: Tensor
    weight: Tensor


class ImitationAlgorithm(Protocol):
    """What an algorithm brings to its body.

    Attributes:
        aggregation: how the losses of steps become one.
    """

    aggregation: Aggregation

    @property
    def optimizer(self) -> Optimizer: ...  # noqa: D102

    def policy_loss(self, policy: PolicyFunction, batch: Any) -> LossAndMetrics:
        """Return the loss of a minibatch."""
        ...


# Nothing is brought to unit scale.
AS_IT_IS = Normalization(observation=False, reward=False, clip=10.0)


@dataclass(frozen=True)
class Unscaled:
    """What an agent is told by who has no rewards: see ``learning/agent.py: AgentSettings``."""

    gamma: float = 1.0
    normalization: Normalization = AS_IT_IS


def no_advantage(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Return zeros: the gradient coefficient is the algorithm's matter."""
    return torch.zeros_like(rollout.reward), torch.zeros_like(rollout.reward)


def agent_of(context: Context, name: str, *, recorded: bool = False) -> Agent:
    """Build a policy that writes responses, and learns neither a value nor an advantage.

    Args:
        context: the other parts of the run.
        name: of the algorithm, for messages.
        recorded: whether it can learn from what others wrote.

    Raises:
        UserError: the run has single steps of an environment, and no responses to prompts.
    """
    if not context.shape.sequences:
        raise UserError(f"{name} learns from responses to prompts: env=add collector=generation")
    context = replace(context, estimator=no_advantage)
    return Agent(context, Unscaled(), critics=False, recorded=recorded)


class Imitation:
    """Takes a step on all that was written in an iteration.

    Attributes:
        agent: the policy.
        learners: what fits it.
        parts: what else decides the future.
    """

    def __init__(
        self, context: Context, algorithm: ImitationAlgorithm, name: str, *, packed: bool = False
    ):
        """Build the policy and what fits it.

        Args:
            context: the other parts of the run.
            algorithm: its hyperparameters and its loss.
            name: of the algorithm, for messages.
            packed: whether several sequences are read in a row.

        Raises:
            UserError: there are no responses to learn from, or they cannot be packed.
        """
        self.agent = agent_of(context, name)
        policy = self.agent.networks.policy
        self._longest_row: float | None = None  # of several sequences
        if packed:
            if not (isinstance(policy, TokenPolicy) and policy.reader.decoder.packs):
                raise UserError("algo.packed=true: this model reads one sequence a row")
            self._longest_row = policy.reader.decoder.longest_row
        self._algorithm, self._longest = algorithm, context.shape.longest
        self.policy = learner_of(context.shape)(policy, algorithm.policy_loss, algorithm.optimizer)
        self.learners = {"policy": self.policy}
        self.parts = dict(self.agent.parts)

    def update(self, transitions: Transitions, coefficient: Tensor, progress: float) -> Metrics:
        """Take a step.

        Args:
            transitions: what was written.
            coefficient: GC of each step, [T, N].
            progress: share of the run's steps done, for the schedule.
        """
        rollout = self.agent.rollout(transitions)
        counts = rollout.mask & (coefficient != 0)
        if not counts.any():
            return {"updates": torch.tensor(0)}
        weight = step_weights(rollout.mask, self._algorithm.aggregation, longest=self._longest)
        columns = take(all_rows(counts), rollout.obs, rollout.action, weight * coefficient)
        if self._longest_row is not None:
            assert isinstance(rollout.obs, Sequences)
            columns[0] = [pack(rollout.obs, counts, self._longest_row).to(self.agent.device)]
        rate = self.policy.rate(progress)
        metrics = self.policy.fit(WeightedSteps(*columns), rate)
        return {**summarize([metrics]), "schedule/learning_rate": rate}


def likelihood_loss(policy: PolicyFunction, batch: WeightedSteps) -> LossAndMetrics:
    """L(θ) = −Σ w GC log π_θ(o_t|q, o_<t)."""
    distribution = policy(batch.obs)
    logp = distribution.log_prob(batch.action)
    loss = -(batch.weight * logp).sum()
    return loss, {
        "loss/policy": loss,
        "policy/entropy": distribution.entropy().mean(),
        "policy/logp": logp.mean(),
    }


def reference_of(context: Context, path: str | None, name: str, device: torch.device) -> Reference:
    """Read the policy that an algorithm compares with: one that is named, or the run's first.

    Args:
        context: the other parts of the run.
        path: of a run or checkpoint; None: that of ``model.init``.
        name: of the algorithm, for messages.
        device: where the learner is.

    Raises:
        UserError: there is none.
    """
    if path is None and context.initial is None:
        raise UserError(f"{name} needs another policy: algo.reference=RUN, or model.init=RUN")
    if path is not None:
        return context.load_policy(path, device, "algo.reference")
    return context.load_policy(context.initial, device, "model.init")
