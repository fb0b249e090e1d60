"""The body of the methods that learn a deterministic policy: DDPG's step, and TD3's.

φ descends Σ_i E[(Q_i(s, a) − y)²],  y = r + γ (1 − d) v(s')      d times
θ ascends E[Q_1(s, μ(s))]                                         once
θ̄ ← θ̄ + τ (θ − θ̄),  φ̄ ← φ̄ + τ (φ − φ̄)
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.algos.off_policy.action_kinds import Function
from rlrun.algos.off_policy.replay_update import ActionCriticBatch, Draw, Given, ReplayUpdate
from rlrun.data.replay.buffer import Replay
from rlrun.learning.contract import Context, LossAndMetrics, Metrics
from rlrun.learning.learner import GradientDescent, GradientState
from rlrun.learning.optimizers import Adam
from rlrun.models.bounded_distributions import Box, Dirac
from rlrun.models.ensemble import Ensemble
from rlrun.models.explorers import ActionNoise, NoisyActions

# A policy with some parameters.
Deterministic = Callable[[Tensor], Dirac]


class DeterministicAlgorithm(Protocol):
    """What an algorithm brings to its body."""

    gamma: float
    replay: Replay
    target_rate: float
    noise: ActionNoise
    policy_optimizer: Adam
    critic_optimizer: Adam

    def next_value(
        self, policy: Deterministic, critics: Function, next_obs: Tensor, noise: Tensor
    ) -> Tensor:
        """Return v(s'), [B], by the target networks.

        Args:
            policy: μ̄.
            critics: observations and actions -> Q̄_i, [M, B].
            next_obs: s', [B, D].
            noise: ε ~ N(0, 1), [B, A].
        """
        ...


class DeterministicState(NamedTuple):
    """What a step changes.

    Attributes:
        policy: θ, and its optimiser's state.
        critics: φ of all, likewise.
        target_policy: θ̄.
        target_critics: φ̄.
    """

    policy: GradientState
    critics: GradientState
    target_policy: Tensor
    target_critics: Tensor


class DeterministicPolicyBatch(NamedTuple):
    """What the policy learns from: s, and the critics."""

    obs: Tensor
    critics: Function


class DeterministicUpdate:
    """Fits a deterministic policy and its critics.

    Attributes:
        body: what it acts by, draws and fits.
    """

    def __init__(
        self, context: Context, algorithm: DeterministicAlgorithm, *, critics: int, delay: int
    ):
        """Build the networks.

        Args:
            context: the other parts of the run.
            algorithm: its hyperparameters, and v(s').
            critics: how many.
            delay: d, updates of the critics for each of the policy and the targets.

        Raises:
            UserError: actions are a choice, or have no bounds.
        """
        problem, model, init = context.problem, context.model, context.streams.init
        device = context.hardware.torch_device()
        bounds = Box(*problem.bounds)
        self._algorithm, self._delay = algorithm, delay
        policy = model.deterministic_policy(problem, init).to(device)
        members = [model.action_critic(problem, init) for _ in range(critics)]
        ensemble = Ensemble(members).to(device)
        self._policy = GradientDescent(policy, self.policy_loss, algorithm.policy_optimizer)
        self._critics = GradientDescent(ensemble, self.critic_loss, algorithm.critic_optimizer)
        first, first_critics = self._policy.start(), self._critics.start()
        self.body = ReplayUpdate(
            context,
            algorithm.replay,
            policy,
            ensemble,
            NoisyActions(algorithm.noise, bounds, context.shape.num_envs),
            gamma=algorithm.gamma,
            step=self.step,
            state=DeterministicState(
                first, first_critics, first.theta.clone(), first_critics.theta.clone()
            ),
            optimizers={
                "policy": algorithm.policy_optimizer,
                "critics": algorithm.critic_optimizer,
            },
            noise_shape=(algorithm.replay.batch_size, len(bounds.low)),
            delay=delay,
        )

    def step(
        self, state: DeterministicState, draw: Draw, given: Given
    ) -> tuple[DeterministicState, Metrics]:
        """Take d updates of the critics and one of the policy, as a pure function."""
        target_policy = self._policy.at(state.target_policy)
        target_critics = self._critics.at(state.target_critics)
        critics, draws = state.critics, [draw]
        if self._delay > 1:
            draws = [Draw(*columns) for columns in zip(*draw, strict=True)]
        for each in draws:
            batch = self.body.take(each.places, given.ring)
            value = self._algorithm.next_value(
                target_policy, target_critics, batch.next_obs, each.noise
            )
            y = batch.reward + batch.discount * value
            critics, critic_metrics = self._critics(
                critics, ActionCriticBatch(batch.obs, batch.action, y), given.rates["critics"]
            )
        policy, policy_metrics = self._policy(
            state.policy,
            DeterministicPolicyBatch(batch.obs, self._critics.at(critics.theta)),
            given.rates["policy"],
        )
        rate = self._algorithm.target_rate
        following = DeterministicState(
            policy,
            critics,
            torch.lerp(state.target_policy, policy.theta, rate),
            torch.lerp(state.target_critics, critics.theta, rate),
        )
        return following, {**critic_metrics, **policy_metrics}

    def critic_loss(self, critics: Function, batch: ActionCriticBatch) -> LossAndMetrics:
        """L(φ) = Σ_i E[(Q_i(s, a) − y)²]."""
        q = critics(batch.obs, batch.action)  # [M, B]
        loss = (q - batch.target).square().mean(-1).sum()
        return loss, {"loss/value": loss, "value/q": q.mean()}

    def policy_loss(self, policy: Deterministic, batch: DeterministicPolicyBatch) -> LossAndMetrics:
        """L(θ) = −E[Q_1(s, μ(s))]."""
        action = policy(batch.obs).action
        loss = -batch.critics(batch.obs, action, first=1).mean()
        return loss, {"loss/policy": loss}
