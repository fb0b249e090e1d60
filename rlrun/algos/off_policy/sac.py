"""Soft actor-critic.

Haarnoja, Zhou, Abbeel & Levine 2018, "Soft Actor-Critic"; with twin critics and a learned
temperature: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", algorithm 1.
For a choice of actions: Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings".

    y = r + γ (1 − d) [min_i Q̄_i(s', a') − α log π(a'|s')],  a' ~ π(·|s')
    J_Q = Σ_i E[½ (Q_i(s, a) − y)²]
    J_π = E[α log π(a|s) − min_i Q_i(s, a)],  a ~ π(·|s)
    J_α = −E[log α (log π(a|s) + H̄)]

Departures from the second paper: J_α has log α for α, as in the authors' code; actions while the
run warms up are uniform; and the updates of an iteration go on beside its environment steps, so
that they learn from what was seen before them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.off_policy.action_kinds import Function, kind_of_actions
from rlrun.algos.off_policy.replay_update import (
    ActionCriticBatch,
    Draw,
    Given,
    ReplayUpdate,
    explore,
    update,
)
from rlrun.config.types import Count, Fraction
from rlrun.data.replay.buffer import Replay
from rlrun.learning.contract import Context, LossAndMetrics, Metrics
from rlrun.learning.exploration import Temperature
from rlrun.learning.learner import GradientDescent, GradientState
from rlrun.learning.optimizers import Adam, clip_by_norm
from rlrun.models.explorers import OwnChance


class SACState(NamedTuple):
    """What an update changes.

    Attributes:
        policy: θ, and its optimiser's state.
        critics: φ of both, likewise.
        target: φ̄.
        log_temperature: log α [1], likewise.
    """

    policy: GradientState
    critics: GradientState
    target: Tensor
    log_temperature: GradientState


class SoftPolicyBatch(NamedTuple):
    """What the policy learns from: s, noise, the critics and α."""

    obs: Tensor
    noise: Tensor
    critics: Function
    temperature: Tensor


@dataclass(kw_only=True, eq=False)
class SAC:
    """Hyperparameters (explained in ``conf/algo/sac.yaml``), and the losses."""

    loop: ClassVar = staticmethod(loops.off_policy)
    explore, update = explore, update

    num_envs: Count
    horizon: Count
    gamma: Fraction
    temperature: Temperature
    replay: Replay
    target_rate: Fraction
    policy_optimizer: Adam
    critic_optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        device = context.hardware.torch_device()
        self.actions = actions = kind_of_actions(context)
        policy = actions.policy(context).to(device)
        critics = actions.critics(context, 2).to(device)
        self.policy = GradientDescent(policy, self.policy_loss, self.policy_optimizer)
        self.critics = GradientDescent(critics, self.critic_loss, self.critic_optimizer)
        optimizers = {"policy": self.policy_optimizer, "critics": self.critic_optimizer}
        log_alpha = torch.tensor([self.temperature.initial], device=device).log()
        moments: Any = ()
        if self.temperature.optimizer is not None:
            optimizers["temperature"] = self.temperature.optimizer
            moments = self.temperature.optimizer.start(log_alpha)
        start = self.critics.start()
        self.body = ReplayUpdate(
            context,
            self.replay,
            policy,
            critics,
            OwnChance(),
            gamma=self.gamma,
            step=self.step,
            state=SACState(
                self.policy.start(), start, start.theta.clone(), GradientState(log_alpha, moments)
            ),
            optimizers=optimizers,
            noise_shape=(2, self.replay.batch_size, actions.noise_size),
        )
        self.agent, self.buffer, self.learners, self.parts = self.body.contract

    def step(self, state: SACState, draw: Draw, given: Given) -> tuple[SACState, Metrics]:
        """Take one update, as a pure function (algorithm 1)."""
        batch = self.body.take(draw.places, given.ring)
        noise, next_noise = draw.noise
        alpha = state.log_temperature.theta.exp()
        value, next_logp = self.actions.expected(
            self.policy.at(state.policy.theta),
            self.critics.at(state.target),
            batch.next_obs,
            next_noise,
        )
        y = batch.reward + batch.discount * (value - alpha * next_logp)
        critics, critic_metrics = self.critics(
            state.critics, ActionCriticBatch(batch.obs, batch.action, y), given.rates["critics"]
        )
        policy, policy_metrics = self.policy(
            state.policy,
            SoftPolicyBatch(batch.obs, noise, self.critics.at(critics.theta), alpha),
            given.rates["policy"],
        )
        log_temperature = self.fit_temperature(
            state.log_temperature, policy_metrics["policy/entropy"], given.rates
        )
        # φ̄ ← φ̄ + τ (φ − φ̄)
        target = torch.lerp(state.target, critics.theta, self.target_rate)
        metrics = {**critic_metrics, **policy_metrics, "policy/temperature": alpha[0]}
        return SACState(policy, critics, target, log_temperature), metrics

    def critic_loss(self, critics: Function, batch: ActionCriticBatch) -> LossAndMetrics:
        """J_Q(φ) = Σ_i E[½ (Q_i(s, a) − y)²]."""
        q = self.actions.taken(critics, batch.obs, batch.action)  # [2, B]
        loss = 0.5 * (q - batch.target).square().mean(-1).sum()
        return loss, {"loss/value": loss, "value/q": q.mean()}

    def policy_loss(self, policy: Callable, batch: SoftPolicyBatch) -> LossAndMetrics:
        """J_π(θ) = E[α log π(a|s) − min_i Q_i(s, a)]."""
        value, logp = self.actions.expected(policy, batch.critics, batch.obs, batch.noise)
        loss = (batch.temperature * logp - value).mean()
        return loss, {"loss/policy": loss, "policy/entropy": -logp.mean()}

    def fit_temperature(
        self, state: GradientState, entropy: Tensor, rates: dict[str, Tensor]
    ) -> GradientState:
        """Descend J_α = −E[log α (log π(a|s) + H̄)], whose gradient in log α is E[−log π] − H̄."""
        optimizer, wanted = self.temperature.optimizer, self.temperature.target_entropy
        if optimizer is None:
            return state
        gradient = entropy - (self.actions.target_entropy if wanted is None else wanted)
        gradient = clip_by_norm(gradient.view(1), optimizer.max_grad_norm)
        log_alpha, moments = optimizer.step(
            state.theta, gradient, state.optimizer, learning_rate=rates["temperature"]
        )
        return GradientState(log_alpha, moments)
