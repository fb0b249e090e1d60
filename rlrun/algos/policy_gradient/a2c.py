"""A2C: the synchronous form of the asynchronous advantage actor-critic, A3C.

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", §4. Many environments take
a few steps each; then policy and critic take one gradient step on all of them, and the steps are
thrown away:

    policy  ∇_θ E[Â log π_θ(a|s) + c H(π_θ)]      critic  −∇_φ ½ E[(V_φ(s) − target)²]

Departures from Mnih et al.: environments wait for each other, so that there is one learner and one
set of weights; advantages are GAE's mixture instead of one n-step return (`advantage=nstep` is
theirs); observations and rewards are normalised and the weights orthogonal (Weng et al. 2022,
"Tianshou"); policy and critic, which share no parameters, each have an optimiser and a gradient
norm of their own; a truncated episode is bootstrapped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import ACTOR_CRITIC_COLUMNS, Estimator
from rlrun.algos.contract import check_rollout_settings
from rlrun.collectors.contract import Collector
from rlrun.config.types import at_least, between, positive, positive_or_infinite
from rlrun.data.minibatches import all_rows, take
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import explained_variance, summarize
from rlrun.learning.optimizers import RMSprop
from rlrun.learning.protocols import Stateful
from rlrun.learning.surrogates import standardize
from rlrun.models.agent import make_agent
from rlrun.models.distributions import Categorical, DiagonalGaussian


class PolicyBatch(NamedTuple):
    """B rows of a rollout for the policy: [B, D], [B] or [B, A], [B]."""

    obs: Tensor
    action: Tensor
    advantage: Tensor


@dataclass(kw_only=True, eq=False)
class A2C:
    """Hyperparameters (their meaning and source stand in ``conf/algo/a2c.yaml``) and the learners.

    Attributes:
        agent: policy and critic.
        learners: what fits them.
        parts: what else decides the future.
    """

    num_envs: int
    horizon: int | None
    learning_rate: float
    anneal_learning_rate: bool
    rmsprop_alpha: float
    rmsprop_epsilon: float
    gamma: float
    entropy_coefficient: float
    max_grad_norm: float
    normalize_advantage: bool
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
            rmsprop_epsilon=self.rmsprop_epsilon,
        )
        positive_or_infinite(max_grad_norm=self.max_grad_norm)
        between(0, 1, rmsprop_alpha=self.rmsprop_alpha)
        at_least(0, entropy_coefficient=self.entropy_coefficient)

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
        """Build the networks and what fits them (see ``rlrun/algos/contract.py``)."""
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="a2c",
            estimator=estimator,
            offers=ACTOR_CRITIC_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        rmsprop = RMSprop(alpha=self.rmsprop_alpha, epsilon=self.rmsprop_epsilon)
        self.policy_learner = Learner(
            self.agent.policy,
            self.policy_loss,
            minibatches=1,
            optimizer=rmsprop,
            max_grad_norm=self.max_grad_norm,
        )
        self.critics = Critics(
            self.agent, minibatches=1, optimizer=rmsprop, max_grad_norm=self.max_grad_norm
        )
        self.learners = {"policy": self.policy_learner, "critics": self.critics}
        self.parts: dict[str, Stateful] = {}
        self.run_both = hardware.run_both
        rows = problem.rollout_length(self.horizon, self.num_envs) * self.num_envs
        # Rollouts of whole episodes differ in size.
        if compiled and not problem.whole_episodes:
            obs, action, zeros = self.agent.example(rows)
            self.policy_learner.compile(hardware.compiled, PolicyBatch(obs, action, zeros))
            self.critics.compile(hardware, CriticBatch(obs, action, zeros, zeros))

    def updates(self, total_steps: int) -> int:
        """Return how many steps of policy and critic a run of ``total_steps`` takes."""
        return 0 if self.horizon is None else total_steps // (self.num_envs * self.horizon)

    def collect(self, collector: Collector) -> Rollout:
        """Return what the current policy does."""
        return collector.collect(self.agent)

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Take one step of policy and critic on all of a rollout.

        Args:
            rollout: what the current policy did, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            Means, each [], and ``updates``, the number of steps.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.agent.device)
        advantage, target = self.estimate(rollout)
        rows = all_rows(rollout.mask)
        batch = PolicyBatch(*take(rows, rollout.obs, rollout.action, advantage))
        policy_metrics, critic_metrics = self.run_both(
            partial(self.policy_learner.fit, batch, learning_rate),
            partial(self.critics.fit, critic_batches(rollout, target, rows), learning_rate),
            compiled=self.policy_learner.is_compiled,
        )
        return {
            **summarize([policy_metrics | critic_metrics]),
            **explained_variance(rollout, target),
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(1),
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: PolicyBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[Â log π(a|s)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        loss = -(advantage * distribution.log_prob(batch.action)).mean()
        entropy = distribution.entropy().mean()
        return loss - self.entropy_coefficient * entropy, {
            "loss/policy": loss,
            "policy/entropy": entropy,
        }
