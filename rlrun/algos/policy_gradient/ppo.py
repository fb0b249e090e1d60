"""Proximal policy optimisation with the clipped objective.

Schulman, Wolski, Dhariwal, Radford & Klimov 2017, "Proximal Policy Optimization Algorithms",
eq. 7, with the details that decide its results (Huang et al. 2022, "The 37 implementation details
of PPO"): orthogonal initialisation, Adam with ε = 1e-5, a learning rate that falls to zero,
normalised observations and rewards, advantages normalised per minibatch, gradients clipped.

Departures from Huang et al.: a truncated episode is bootstrapped; observation statistics are fixed
during an iteration; the value loss is not clipped unless asked for; policy and critic, which share
no parameters, each have an optimiser and a gradient norm of their own, so that no weight is needed
between their losses and both can be fitted at the same time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.agent import Agent, refuse_second_ratio
from rlrun.algos.contract import Context
from rlrun.algos.policy_gradient.actor_critic_update import ActorCriticUpdate, PolicyBatch
from rlrun.config.types import Count, Fraction, NonNegative, Positive, PositiveOrInfinite
from rlrun.data.minibatches import take
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.metrics import explained_variance, policy_metrics, summarize
from rlrun.learning.optimizers import Adam
from rlrun.learning.surrogates import clipped_surrogate, standardize
from rlrun.models.distributions import Distribution


@dataclass(kw_only=True, eq=False)
class PPO:
    """Hyperparameters (explained in ``conf/algo/ppo.yaml``), and the loss."""

    num_envs: Count
    horizon: Count
    gamma: Fraction
    epochs: Count
    minibatch_size: Count
    clip: PositiveOrInfinite
    stop_kl: Positive | None
    value_clip: Positive | None
    optimizer: Adam
    entropy_coefficient: NonNegative
    normalize_advantage: bool
    recompute_advantage: bool
    normalization: Normalization

    loop: ClassVar = staticmethod(loops.on_policy)

    def __post_init__(self):
        """Refuse minibatches of one row, whose advantage would be normalised to 0."""
        if self.normalize_advantage and self.minibatch_size == 1:
            raise ValueError("minibatch_size must be at least 2 to normalize_advantage, got 1")

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.agent = Agent(context, self, critics=True)
        if self.recompute_advantage:
            refuse_second_ratio(self.agent)
        self.body = ActorCriticUpdate(
            self.agent,
            context,
            self.policy_loss,
            optimizer=self.optimizer,
            epochs=self.epochs,
            minibatch_size=self.minibatch_size,
            value_clip=self.value_clip,
        )
        self.learners, self.parts = self.body.learners, self.agent.parts

    @torch.no_grad()
    def update(self, transitions: Transitions, *, progress: float) -> dict[str, Tensor]:
        """Improve policy and critic on one rollout, for several epochs of minibatches."""
        learning_rate = torch.tensor(self.optimizer.rate(progress), device=self.agent.device)
        rollout = self.agent.rollout(transitions)
        estimate = self.agent.estimate(rollout)
        history = []
        for epoch in self.body.passes(
            rollout,
            estimate,
            epochs=self.epochs,
            minibatch_size=self.minibatch_size,
            recompute=self.recompute_advantage,
        ):
            columns = (rollout.obs, rollout.action, rollout.logp, epoch.advantage)
            batches = PolicyBatch(*take(epoch.rows, *columns))
            history.append(self.body.fit(batches, rollout, epoch, learning_rate=learning_rate))
            # The policy has gone far enough from the one that collected the data.
            if self.stop_kl is not None and history[-1]["policy/kl"].mean() > 1.5 * self.stop_kl:
                break
        return {
            **summarize(history),
            **explained_variance(rollout, estimate[1]),
            "schedule/learning_rate": learning_rate,
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Distribution], batch: PolicyBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[min(ρ Â, clip(ρ, 1 ± ε) Â)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        surrogate = clipped_surrogate(log_ratio, advantage, self.clip).mean()
        entropy = distribution.entropy()
        return -surrogate - self.entropy_coefficient * entropy.mean(), {
            "loss/policy": -surrogate,
            **policy_metrics(log_ratio, entropy, clip=self.clip),
        }
