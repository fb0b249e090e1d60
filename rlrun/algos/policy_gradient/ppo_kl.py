"""Proximal policy optimisation with a KL penalty instead of a clipped objective.

Schulman, Wolski, Dhariwal, Radford & Klimov 2017, "Proximal Policy Optimization Algorithms", §4:
maximise ρ Â − β KL(π_old ‖ π_θ), with β fixed or adapted after each iteration, so that the KL
divergence stays near a target. The KL is exact: these distributions have a closed form.

Departures: the details that decide PPO's results (Huang et al. 2022, "The 37 implementation details
of PPO"), the same as in ``ppo.py``; an adapted β has a smallest and a largest value.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.policy_gradient.actor_critic_update import ActorCriticUpdate, Epochs
from rlrun.config.types import Count, Fraction, NonNegative
from rlrun.data.minibatches import take
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.agent import Agent
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.kl import OldPolicyKL
from rlrun.learning.losses.surrogates import standardize
from rlrun.learning.metrics import USUAL_CLIP, explained_variance, policy_metrics, summarize
from rlrun.learning.optimizers import Adam


class PenalisedBatch(NamedTuple):
    """B rows of a rollout for the policy.

    Attributes:
        obs: [B, D].
        action: [B] or [B, A].
        logp: log π_old(a|s), [B].
        advantage: Â, [B].
        old: parameters of π_old(·|s): logits [B, K], or mean and log σ [B, 2A].
        weight: w (see `PolicyBatch`), [B].
        kl_coefficient: β, the same in every row, [B]: compiled code takes it as an input.
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor
    old: Tensor
    weight: Tensor
    kl_coefficient: Tensor


@dataclass(kw_only=True, eq=False)
class PPOKL:
    """Hyperparameters (explained in ``conf/algo/ppo_kl.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    horizon: Count
    epochs: Count
    minibatch_size: Count
    kl: OldPolicyKL
    gamma: Fraction
    entropy_coefficient: NonNegative
    normalize_advantage: bool
    recompute_advantage: bool
    optimizer: Adam
    normalization: Normalization

    def setup(self, context: Context) -> None:
        """Build the networks, what fits them, and what β comes from (``algos/contract.py``)."""
        epochs = Epochs(
            self.epochs, self.minibatch_size, self.recompute_advantage, self.normalize_advantage
        )
        self.body = ActorCriticUpdate(context, self, epochs, example=self.example)
        self.agent, self.learners = self.body.agent, self.body.learners
        self.controller = self.kl.controller(self.agent.device)
        self.parts = {**self.agent.parts, "kl_coefficient": self.controller}

    def example(self, agent: Agent, size: int) -> PenalisedBatch:
        """Return a minibatch to compile for."""
        obs, action, zeros = agent.example(size)
        old = agent.networks.policy(obs).parameters
        return PenalisedBatch(obs, action, zeros, zeros, old, zeros, zeros)

    @torch.no_grad()
    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Improve policy and critic on one rollout, for several epochs; then adapt β."""
        rollout = self.agent.rollout(transitions)
        estimate, policy = self.agent.estimate(rollout), self.agent.networks.policy
        kl_coefficient, old = self.controller.value, policy(rollout.obs).parameters
        history = []
        for epoch in self.body.epochs(rollout, estimate):
            beta = kl_coefficient.expand_as(epoch.advantage)
            columns = (rollout.obs, rollout.action, rollout.logp, epoch.advantage, old)
            batches = PenalisedBatch(*take(epoch.rows, *columns, rollout.weight, beta))
            history.append(self.body.fit(rollout, epoch, progress, batches=batches))
        kl = policy(rollout.obs).kl_from(old)[rollout.mask].mean()
        self.controller.update(kl, samples=int(rollout.mask.sum()))
        return {
            **summarize(history),
            **explained_variance(rollout, estimate[1]),
            "schedule/learning_rate": self.body.policy.rate(progress),
            "policy/kl": kl,
            "schedule/kl_coefficient": kl_coefficient,
        }

    def policy_loss(self, policy: PolicyFunction, batch: PenalisedBatch) -> LossAndMetrics:
        """L(θ) = −E[w ρ Â] + β E[KL(π_old ‖ π_θ)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        surrogate = (batch.weight * log_ratio.exp() * advantage).mean()
        kl = distribution.kl_from(batch.old)
        entropy = distribution.entropy()
        penalty = (batch.kl_coefficient * kl).mean()
        return -surrogate + penalty - self.entropy_coefficient * entropy.mean(), {
            "loss/policy": -surrogate,
            **policy_metrics(log_ratio, entropy, USUAL_CLIP),
        }
