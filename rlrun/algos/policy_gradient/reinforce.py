"""REINFORCE: the Monte Carlo policy gradient.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning"; Sutton & Barto 2018, §13.3 and, with a state value as baseline, §13.4. Whole episodes are
played, the policy takes one gradient step, and the episodes are thrown away:

    θ ← θ + α ∇_θ Σ w_t Ψ_t log π_θ(a_t|s_t)

Ψ is what the advantage estimator says (the reward-to-go, unless another is chosen), w the weight of
a step: 1 / (number of episodes), times γ^t if the states are discounted.

Departures from Williams: several episodes a step instead of one, Adam instead of plain ascent, a
gradient of bounded norm, normalised observations and rewards. Ψ is standardised over the episodes
of a step, which practice calls crucial (Weng et al. 2022, "Tianshou"); with
``normalize_advantage=false``, ``aggregation=episode_mean_step_sum``, ``discount_states=true``,
``normalization.reward=false`` and ``optimizer.max_grad_norm=.inf``, the direction is the exact
gradient of the discounted return, for estimators that discount from the step (``reward_to_go``,
``baseline_…``, ``time_group``). Those that discount from the start (``total_return``, ``rloo``)
have it without ``discount_states``.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.config.types import Count, Fraction, NonNegative
from rlrun.data.minibatches import all_rows, take
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.errors import UserError
from rlrun.learning.agent import Agent
from rlrun.learning.autograd import learner_of
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.critics import CriticFit, Critics
from rlrun.learning.losses.aggregation import Aggregation, step_weights
from rlrun.learning.losses.kl import approximate_kl
from rlrun.learning.losses.reference_kl import NO_PENALTY, ReferenceKL
from rlrun.learning.losses.reference_penalty import penalty_of
from rlrun.learning.losses.surrogates import standardize
from rlrun.learning.metrics import explained_variance, summarize
from rlrun.learning.optimizers import Adam


class WeightedBatch(NamedTuple):
    """B steps of whole episodes: [B, D], [B] or [B, A], Ψ [B] and w [B]."""

    obs: Tensor
    action: Tensor
    advantage: Tensor
    weight: Tensor


@dataclass(kw_only=True, eq=False)
class REINFORCE:
    """Hyperparameters (explained in ``conf/algo/reinforce.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    gamma: Fraction
    discount_states: bool
    aggregation: Aggregation
    optimizer: Adam
    kl: ReferenceKL = NO_PENALTY  # of runs from before there was one
    critic: CriticFit
    normalize_advantage: bool
    entropy_coefficient: NonNegative
    normalization: Normalization

    def __post_init__(self) -> None:
        """Refuse a penalty in the loss."""
        self.kl.require_in_reward()

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        if not context.shape.whole_episodes:
            raise UserError("reinforce learns from whole episodes: collector=episodes")
        self.longest, self.shuffle = context.shape.longest, context.streams.minibatch
        self.agent = Agent(context, self, critics=True)
        networks, learner = self.agent.networks, learner_of(context.shape)
        self.policy_learner = learner(networks.policy, self.policy_loss, self.optimizer)
        self.critics = Critics(networks, optimizer=self.critic.optimizer, learner=learner)
        self.learners = {"policy": self.policy_learner, "critics": self.critics}
        self.penalty = penalty_of(self.kl, self.agent, context)
        self.parts = {**self.agent.parts, **self.penalty.parts}

    @torch.no_grad()
    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Take one step of the policy, and fit the critics if there are any."""
        learning_rate = self.policy_learner.rate(progress)
        rollout, _, _, penalty = self.penalty(self.agent.rollout(transitions))
        advantage, target = self.agent.estimate(rollout)
        advantage = torch.where(rollout.mask, advantage, 0.0)
        weight = step_weights(rollout.mask, self.aggregation, longest=self.longest)
        coefficient = rollout.weight * self.coefficient(advantage, rollout.mask)
        columns = (rollout.obs, rollout.action, coefficient, weight)
        batch = WeightedBatch(*take(all_rows(rollout.mask), *columns))
        metrics = self.policy_learner.fit(batch, learning_rate)
        moved = self.agent.networks.policy(rollout.obs).log_prob(rollout.action) - rollout.logp
        # After Ψ was taken from them as they were.
        critic_metrics = self.critics.fit_epochs(
            rollout, target, settings=self.critic, progress=progress, generator=self.shuffle
        )
        self.penalty.grow_older()
        return {
            **penalty,
            **critic_metrics,
            **summarize([metrics]),
            **explained_variance(rollout, target),
            "policy/kl": approximate_kl(moved[rollout.mask]),
            "schedule/learning_rate": learning_rate,
            "updates": 1 + critic_metrics["updates"],
        }

    def coefficient(self, advantage: Tensor, mask: Tensor) -> Tensor:
        """Return Ψ as it enters the gradient: standardised and discounted, if so chosen, [T, N].

        Args:
            advantage: Ψ of the estimator, [T, N].
            mask: steps that count, [T, N].
        """
        if self.normalize_advantage:
            advantage = advantage.masked_scatter(mask, standardize(advantage[mask]))
        if self.discount_states:
            step = torch.arange(len(advantage), device=advantage.device)
            advantage = self.gamma ** step.unsqueeze(-1) * advantage
        return advantage

    def policy_loss(self, policy: PolicyFunction, batch: WeightedBatch) -> LossAndMetrics:
        """L(θ) = −Σ w (Ψ log π(a|s) + c H(π))."""
        distribution = policy(batch.obs)
        entropy = distribution.entropy()
        loss = -(batch.weight * batch.advantage * distribution.log_prob(batch.action)).sum()
        bonus = self.entropy_coefficient * (batch.weight * entropy).sum()
        return loss - bonus, {"loss/policy": loss, "policy/entropy": entropy.mean()}
