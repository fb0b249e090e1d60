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
``normalize_reward=false`` and ``max_grad_norm=.inf``, the direction is the exact gradient of the
discounted return, for estimators that discount from the step (``reward_to_go``, ``baseline_…``,
``time_group``). Those that discount from the start (``total_return``, ``rloo``) have it without
``discount_states``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import ACTOR_CRITIC_COLUMNS, Estimator
from rlrun.algos.contract import check_rollout_settings
from rlrun.collectors.contract import Collector
from rlrun.config.types import at_least, positive, positive_or_infinite
from rlrun.data.minibatches import all_rows, take
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.hardware.spec import Hardware
from rlrun.learning.aggregation import Aggregation, step_weights
from rlrun.learning.critics import Critics
from rlrun.learning.kl import approximate_kl
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import explained_variance, summarize
from rlrun.learning.optimizers import Adam
from rlrun.learning.protocols import Stateful
from rlrun.learning.surrogates import standardize
from rlrun.models.agent import make_agent
from rlrun.models.distributions import Categorical, DiagonalGaussian


class PolicyBatch(NamedTuple):
    """B steps of whole episodes: [B, D], [B] or [B, A], Ψ [B] and w [B]."""

    obs: Tensor
    action: Tensor
    advantage: Tensor
    weight: Tensor


@dataclass(kw_only=True, eq=False)
class REINFORCE:
    """Hyperparameters (their meaning and source stand in ``conf/algo/reinforce.yaml``).

    Attributes:
        agent: the policy, and the critics that the estimator needs.
        learners: what fits them.
        parts: what else decides the future.
    """

    num_envs: int
    horizon: int | None
    learning_rate: float
    anneal_learning_rate: bool
    adam_epsilon: float
    gamma: float
    discount_states: bool
    normalize_advantage: bool
    aggregation: Aggregation
    entropy_coefficient: float
    max_grad_norm: float
    critic_learning_rate: float
    critic_epochs: int
    critic_minibatch_size: int
    normalize_observation: bool
    normalize_reward: bool
    normalizer_clip: float
    hidden_sizes: list[int]
    log_std: float

    loop: ClassVar = staticmethod(loops.on_policy)

    def __post_init__(self):
        """Refuse values outside their range."""
        check_rollout_settings(self)
        positive(
            learning_rate=self.learning_rate,
            adam_epsilon=self.adam_epsilon,
            critic_learning_rate=self.critic_learning_rate,
        )
        positive_or_infinite(max_grad_norm=self.max_grad_norm)
        at_least(0, entropy_coefficient=self.entropy_coefficient)
        at_least(
            1, critic_epochs=self.critic_epochs, critic_minibatch_size=self.critic_minibatch_size
        )

    def setup(
        self,
        problem: Problem,
        *,
        hardware: Hardware,
        streams: Streams,
        estimator: Estimator | None,
        compiled: bool,
        from_checkpoint: bool,
    ) -> None:
        """Build the networks and what fits them (see ``rlrun/algos/contract.py``).

        Nothing is compiled: the number of steps differs from rollout to rollout.
        """
        if not problem.whole_episodes:
            raise UserError("reinforce learns from whole episodes: env.group_size=1, or more")
        self.longest = problem.rollout_length(self.horizon, self.num_envs)
        self.streams = streams
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="reinforce",
            estimator=estimator,
            offers=ACTOR_CRITIC_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        adam = Adam(epsilon=self.adam_epsilon)
        self.policy_learner = Learner(
            self.agent.policy,
            self.policy_loss,
            minibatches=1,
            optimizer=adam,
            max_grad_norm=self.max_grad_norm,
        )
        self.critics = Critics(
            self.agent, minibatches=1, optimizer=adam, max_grad_norm=self.max_grad_norm
        )
        self.learners = {"policy": self.policy_learner, "critics": self.critics}
        self.parts: dict[str, Stateful] = {}

    def updates(self, total_steps: int) -> int:
        """Return 0: there is nothing to compile."""
        return 0

    def collect(self, collector: Collector) -> Rollout:
        """Return episodes of the current policy."""
        return collector.collect(self.agent)

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Take one step of the policy, and fit the critics if there are any.

        Args:
            rollout: whole episodes of the current policy, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            Means, each [], and ``updates``, the policy's steps.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.agent.device)
        advantage, target = self.estimate(rollout)
        batch = PolicyBatch(
            *take(
                all_rows(rollout.mask),
                rollout.obs,
                rollout.action,
                self.coefficient(advantage, rollout.mask),
                step_weights(rollout.mask, self.aggregation, longest=self.longest),
            )
        )
        metrics = self.policy_learner.fit(batch, learning_rate)
        log_ratio = self.agent.log_prob(rollout.obs, rollout.action) - rollout.logp
        # After Ψ was taken from them as they were.
        critic_metrics, _ = self.critics.fit_epochs(
            rollout,
            target,
            epochs=self.critic_epochs,
            size=self.critic_minibatch_size,
            learning_rate=torch.tensor(self.critic_learning_rate * decay, device=self.agent.device),
            generator=self.streams.minibatch,
        )
        return {
            **summarize([metrics]),
            **critic_metrics,
            **explained_variance(rollout, target),
            "policy/kl": approximate_kl(log_ratio[rollout.mask]),
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(1),
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

    def policy_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: PolicyBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −Σ w (Ψ log π(a|s) + c H(π))."""
        distribution = policy(batch.obs)
        entropy = distribution.entropy()
        loss = -(batch.weight * batch.advantage * distribution.log_prob(batch.action)).sum()
        bonus = self.entropy_coefficient * (batch.weight * entropy).sum()
        return loss - bonus, {"loss/policy": loss, "policy/entropy": entropy.mean()}
