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

from dataclasses import dataclass
from typing import ClassVar

import torch

from rlrun import loops
from rlrun.algos.policy_gradient.actor_critic_update import ActorCriticUpdate, Epochs, PolicyBatch
from rlrun.config.types import Count, Fraction, NonNegative, Positive, PositiveOrInfinite
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.reference_kl import NO_PENALTY, ReferenceKL
from rlrun.learning.losses.reference_penalty import penalty_of
from rlrun.learning.losses.surrogates import clipped_surrogate, standardize
from rlrun.learning.metrics import explained_variance, policy_metrics, summarize
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class PPO:
    """Hyperparameters (explained in ``conf/algo/ppo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    horizon: Count
    gamma: Fraction
    epochs: Count
    minibatch_size: Count
    optimizer: Adam
    kl: ReferenceKL = NO_PENALTY  # of runs from before there was one
    clip: PositiveOrInfinite
    entropy_coefficient: NonNegative
    value_clip: Positive | None
    stop_kl: Positive | None
    normalize_advantage: bool
    recompute_advantage: bool
    normalization: Normalization

    def __post_init__(self) -> None:
        """Refuse a penalty in the loss."""
        self.kl.require_in_reward()

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        epochs = Epochs(
            self.epochs, self.minibatch_size, self.recompute_advantage, self.normalize_advantage
        )
        self.body = ActorCriticUpdate(context, self, epochs, value_clip=self.value_clip)
        self.agent, self.learners = self.body.agent, self.body.learners
        self.penalty = penalty_of(self.kl, self.agent, context)
        self.parts = {**self.body.parts, **self.penalty.parts}

    @torch.no_grad()
    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Improve policy and critic on one rollout, for several epochs of minibatches."""
        rollout, _, _, penalty = self.penalty(self.agent.rollout(transitions))
        estimate = self.agent.estimate(rollout)
        history = []
        for epoch in self.body.epochs(rollout, estimate):
            history.append(self.body.fit(rollout, epoch, progress))
            # The policy has gone far enough from the one that collected the data.
            if self.stop_kl is not None and history[-1]["policy/kl"].mean() > 1.5 * self.stop_kl:
                break
        self.penalty.grow_older()
        return {
            **summarize(history),
            **explained_variance(rollout, estimate[1]),
            **penalty,
            "schedule/learning_rate": self.body.policy.rate(progress),
        }

    def policy_loss(self, policy: PolicyFunction, batch: PolicyBatch) -> LossAndMetrics:
        """L(θ) = −E[w min(ρ Â, clip(ρ, 1 ± ε) Â)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        surrogate = (batch.weight * clipped_surrogate(log_ratio, advantage, self.clip)).mean()
        entropy = distribution.entropy()
        return -surrogate - self.entropy_coefficient * entropy.mean(), {
            "loss/policy": -surrogate,
            **policy_metrics(log_ratio, entropy, self.clip),
        }
