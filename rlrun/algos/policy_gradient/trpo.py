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

from rlrun import loops
from rlrun.config.types import Count, Fraction
from rlrun.data.minibatches import all_rows, take
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.agent import Agent
from rlrun.learning.contract import Context, Metrics, Trainable
from rlrun.learning.critics import CriticBatch, CriticFit, Critics
from rlrun.learning.losses.surrogates import standardize
from rlrun.learning.metrics import explained_variance
from rlrun.learning.trust_region import TrustRegion, TrustRegionBatch, TrustRegionStep


@dataclass(kw_only=True, eq=False)
class TRPO:
    """Hyperparameters (explained in ``conf/algo/trpo.yaml``), and the order of work."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    horizon: Count
    gamma: Fraction
    trust_region: TrustRegion
    critic: CriticFit
    normalize_advantage: bool
    normalization: Normalization

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.agent = Agent(context, self, critics=True)
        self.shuffle = context.streams.minibatch
        self.side_by_side = context.hardware.side_by_side()
        self.policy_step = TrustRegionStep(self.agent.networks.policy, self.trust_region)
        self.critics = Critics(self.agent.networks, optimizer=self.critic.optimizer)
        self.learners: dict[str, Trainable] = {"policy": self.policy_step, "critics": self.critics}
        self.parts = self.agent.parts
        shape, size = context.shape, self.critic.minibatch_size
        minibatches = shape.minibatches(size)
        # Rollouts of whole episodes differ in size.
        if not shape.whole_episodes:
            batch = TrustRegionBatch(*self.agent.example(shape.rows))
            self.policy_step.expect(batch, rate=1 / shape.rows)
            obs, action, zeros = self.agent.example(size)
            self.critics.expect(
                CriticBatch(obs, action, zeros, zeros),
                rate=self.critic.epochs / size,
                minibatches=minibatches,
            )

    @torch.no_grad()
    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Improve the policy by one step, and fit the critic, on one rollout."""
        rollout = self.agent.rollout(transitions)
        advantage, target = self.agent.estimate(rollout)
        columns = take(all_rows(rollout.mask), rollout.obs, rollout.action, advantage)
        obs, action, advantage = (column[0] for column in columns)
        if self.normalize_advantage:
            advantage = standardize(advantage)
        policy_metrics, critic_metrics = self.side_by_side(
            partial(self.policy_step.take, TrustRegionBatch(obs, action, advantage)),
            partial(
                self.critics.fit_epochs,
                rollout,
                target,
                settings=self.critic,
                progress=progress,
                generator=self.shuffle,
            ),
            compiled=self.policy_step.is_compiled,
        )
        return {
            **critic_metrics,
            **policy_metrics,
            **explained_variance(rollout, target),
            "schedule/learning_rate": torch.tensor(self.critic.optimizer.rate(progress)),
            "updates": 1 + critic_metrics["updates"],
        }
