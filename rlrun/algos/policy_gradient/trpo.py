"""Trust region policy optimisation.

Schulman, Levine, Moritz, Jordan & Abbeel 2015, "Trust Region Policy Optimization", §6 and
appendix C: maximise E[ρ Â] subject to E[KL(π_old ‖ π_θ)] ≤ δ, by one natural-gradient step on the
whole rollout and a backtracking line search on both.

Departures, all of them usual (Baselines' trpo_mpi, sb3-contrib): advantages come from an estimator
with a critic, which is fitted with Adam, instead of from Monte Carlo returns; F is damped;
advantages are normalised over the rollout, observations and rewards by running statistics.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import ACTOR_CRITIC_COLUMNS, Estimator
from rlrun.algos.contract import check_minibatch_size, check_rollout_settings
from rlrun.collectors.contract import Collector
from rlrun.config.types import at_least, between, positive, positive_or_infinite
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.critics import CriticBatch, Critics
from rlrun.learning.metrics import explained_variance
from rlrun.learning.optimizers import Adam
from rlrun.learning.protocols import Stateful, Trainable
from rlrun.learning.surrogates import standardize
from rlrun.learning.trust_region import TrustRegionBatch, TrustRegionStep
from rlrun.models.agent import make_agent


@dataclass(kw_only=True, eq=False)
class TRPO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/trpo.yaml``) and learners.

    Attributes:
        agent: policy and critic.
        learners: what fits them.
        parts: what else decides the future.
    """

    num_envs: int
    horizon: int | None
    max_kl: float
    damping: float
    cg_iterations: int
    cg_tolerance: float
    line_search_steps: int
    line_search_shrink: float
    critic_epochs: int
    minibatch_size: int
    learning_rate: float
    anneal_learning_rate: bool
    adam_epsilon: float
    max_grad_norm: float
    gamma: float
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
        at_least(
            1,
            cg_iterations=self.cg_iterations,
            line_search_steps=self.line_search_steps,
            critic_epochs=self.critic_epochs,
            minibatch_size=self.minibatch_size,
        )
        positive(
            max_kl=self.max_kl,
            learning_rate=self.learning_rate,
            adam_epsilon=self.adam_epsilon,
            line_search_shrink=self.line_search_shrink,
        )
        positive_or_infinite(max_grad_norm=self.max_grad_norm)
        between(0, 1, line_search_shrink=self.line_search_shrink)
        at_least(0, damping=self.damping, cg_tolerance=self.cg_tolerance)
        check_minibatch_size(self, self.minibatch_size)
        if self.normalize_advantage and self.horizon is not None:
            at_least(2, **{"num_envs x horizon": self.num_envs * self.horizon})

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
        self.streams = streams
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="trpo",
            estimator=estimator,
            offers=ACTOR_CRITIC_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        rows = problem.rollout_length(self.horizon, self.num_envs) * self.num_envs
        self.policy_step = TrustRegionStep(
            self.agent.policy,
            max_kl=self.max_kl,
            damping=self.damping,
            cg_iterations=self.cg_iterations,
            cg_tolerance=self.cg_tolerance,
            line_search_steps=self.line_search_steps,
            line_search_shrink=self.line_search_shrink,
        )
        self.critics = Critics(
            self.agent,
            minibatches=max(rows // self.minibatch_size, 1),
            optimizer=Adam(epsilon=self.adam_epsilon),
            max_grad_norm=self.max_grad_norm,
        )
        self.learners: dict[str, Trainable] = {"policy": self.policy_step, "critics": self.critics}
        self.parts: dict[str, Stateful] = {}
        self.run_both = hardware.run_both
        # Rollouts of whole episodes differ in size.
        if compiled and not problem.whole_episodes:
            example = TrustRegionBatch(*self.agent.example(rows))
            self.policy_step.compile(hardware.compiled, example)
            obs, action, zeros = self.agent.example(self.minibatch_size)
            self.critics.compile(hardware, CriticBatch(obs, action, zeros, zeros))

    def updates(self, total_steps: int) -> int:
        """Return how many steps the critic takes in a run, beside which the policy's are few."""
        if self.horizon is None:
            return 0
        return total_steps * self.critic_epochs // self.minibatch_size

    def collect(self, collector: Collector) -> Rollout:
        """Return what the current policy does."""
        return collector.collect(self.agent)

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Improve the policy by one step, and fit the critic, on one rollout.

        Args:
            rollout: what the current policy did, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            What to log, each [], and ``updates``: the policy's step and those of the critic.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.agent.device)
        advantage, target = self.estimate(rollout)
        obs, action, advantage = (
            column[rollout.mask] for column in (rollout.obs, rollout.action, advantage)
        )
        if self.normalize_advantage:
            advantage = standardize(advantage)
        policy_metrics, (critic_metrics, critic_updates) = self.run_both(
            partial(self.policy_step.take, TrustRegionBatch(obs, action, advantage)),
            partial(
                self.critics.fit_epochs,
                rollout,
                target,
                epochs=self.critic_epochs,
                size=self.minibatch_size,
                learning_rate=learning_rate,
                generator=self.streams.minibatch,
            ),
            compiled=self.policy_step.is_compiled,
        )
        return {
            **policy_metrics,
            **critic_metrics,
            **explained_variance(rollout, target),
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(1 + critic_updates),
        }
