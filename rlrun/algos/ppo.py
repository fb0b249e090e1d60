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
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages import check_estimator
from rlrun.errors import UserError
from rlrun.hardware import Hardware, run_in_turn
from rlrun.learner import Learner
from rlrun.networks import ActorCritic, Categorical, DiagonalGaussian
from rlrun.objectives import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    clipped_value_error,
    explained_variance,
    squared_value_error,
)
from rlrun.ranges import at_least, between, positive
from rlrun.rollout import Rollout, minibatches
from rlrun.seeding import Streams


class PolicyBatch(NamedTuple):
    """B rows of a rollout for the policy: [B, D], [B] or [B, A], [B], [B]."""

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor


class CriticBatch(NamedTuple):
    """The same rows for the critic: [B, D], [B], [B]."""

    obs: Tensor
    value: Tensor
    target: Tensor


@dataclass(kw_only=True, eq=False)
class PPO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/ppo.yaml``) and the learner.

    Attributes:
        network: policy and critic.
    """

    num_envs: int
    horizon: int
    epochs: int
    minibatch_size: int
    learning_rate: float
    anneal_learning_rate: bool
    adam_epsilon: float
    gamma: float
    clip: float
    value_clip: float | None
    entropy_coefficient: float
    max_grad_norm: float
    target_kl: float | None
    normalize_advantage: bool
    recompute_advantage: bool
    normalize_observation: bool
    normalize_reward: bool
    normalizer_clip: float
    hidden_sizes: list[int]
    log_std: float

    loop: ClassVar = staticmethod(loops.on_policy)

    def __post_init__(self):
        """Refuse values outside their range."""
        at_least(
            1,
            num_envs=self.num_envs,
            horizon=self.horizon,
            epochs=self.epochs,
            minibatch_size=self.minibatch_size,
        )
        positive(
            learning_rate=self.learning_rate,
            adam_epsilon=self.adam_epsilon,
            clip=self.clip,
            max_grad_norm=self.max_grad_norm,
            normalizer_clip=self.normalizer_clip,
        )
        at_least(0, entropy_coefficient=self.entropy_coefficient)
        between(0, 1, gamma=self.gamma)
        for width in self.hidden_sizes:
            at_least(1, hidden_sizes=width)
        for name, value in (("value_clip", self.value_clip), ("target_kl", self.target_kl)):
            if value is not None:
                positive(**{name: value})
        rows = self.num_envs * self.horizon
        if rows % self.minibatch_size:
            raise ValueError(
                f"minibatch_size must divide num_envs x horizon = {rows}, got {self.minibatch_size}"
            )
        if self.normalize_advantage and self.minibatch_size == 1:
            raise ValueError("minibatch_size must be at least 2 to normalize_advantage, got 1")

    def setup(
        self,
        obs_size: int,
        action_space: gym.spaces.Discrete | gym.spaces.Box,
        *,
        hardware: Hardware,
        streams: Streams,
        estimator: Callable[..., tuple[Tensor, Tensor]] | None,
        compiled: bool,
    ) -> None:
        """Build the networks and the optimiser.

        Args:
            obs_size: D.
            action_space: of one environment.
            hardware: where the learner lives.
            streams: initial weights, exploration and shuffles.
            estimator: called as ``estimator(rollout, gamma=gamma)``.
            compiled: whether to compile the update, at the call of :meth:`warm_up`.

        Raises:
            UserError: there is no estimator, or one of its constants is out of range.
        """
        if estimator is None:
            raise UserError("ppo needs an estimator: advantage=gae, say")
        check_estimator(estimator, gamma=self.gamma, obs_size=obs_size)
        self.estimate = partial(estimator, gamma=self.gamma)
        self.streams = streams
        self.device = hardware.torch_device()
        self.network = ActorCritic(
            obs_size,
            action_space,
            hidden_sizes=self.hidden_sizes,
            log_std=self.log_std,
            generator=streams.init,
        ).to(self.device)
        # Environments step on the CPU, where a forward pass of a small network takes less time
        # than a launch on a GPU: acting uses a copy of the policy there.
        self.actor = self.network
        if self.device.type != "cpu":
            self.actor = ActorCritic(
                obs_size,
                action_space,
                hidden_sizes=self.hidden_sizes,
                log_std=self.log_std,
                generator=torch.Generator(),
            )
            self._send_to_actor()

        count = self.num_envs * self.horizon // self.minibatch_size
        learner = partial(
            Learner,
            minibatches=count,
            adam_epsilon=self.adam_epsilon,
            max_grad_norm=self.max_grad_norm,
        )
        self.policy_learner = learner(self.network.policy, self.policy_loss)
        self.critic_learner = learner(self.network.critic, self.critic_loss)
        self.run_both = hardware.run_both if compiled else run_in_turn
        if compiled:
            self.policy_learner.compile(hardware.compiled)
            self.critic_learner.compile(hardware.compiled)

    def updates(self, total_steps: int) -> int:
        """Return how many minibatch updates a run of ``total_steps`` takes."""
        return total_steps * self.epochs // self.minibatch_size

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile the update by running it on zeros; nothing is learned."""
        obs = torch.zeros(self.minibatch_size, self.network.obs_size, device=self.device)
        zeros = torch.zeros(self.minibatch_size, device=self.device)
        action = self.network.policy(obs).mode()
        self.policy_learner.warm_up(PolicyBatch(obs, action, zeros, zeros))
        self.critic_learner.warm_up(CriticBatch(obs, zeros, zeros))

    def run_eagerly(self) -> None:
        """Do without the compiler."""
        self.policy_learner.run_eagerly()
        self.critic_learner.run_eagerly()
        self.run_both = run_in_turn

    # ------------------------------------------------------------------ collecting

    def act(self, obs: Tensor) -> Tensor:
        """Sample an action at each observation [N, D] (CPU), as [N] or [N, A]."""
        return self.actor.policy(obs).sample(self.streams.action)

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the most probable action at each observation [N, D] (CPU), as [N] or [N, A]."""
        return self.actor.policy(obs).mode()

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log π(a|s) and V(s) of a rollout, each [T, N]."""
        distribution, value = self.network(obs)
        return distribution.log_prob(action), value

    def value(self, obs: Tensor) -> Tensor:
        """Return V(s) of observations [T, N, D], as [T, N]."""
        return self.network.critic(obs)

    # ------------------------------------------------------------------ updating

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Improve policy and critic on one rollout, for several epochs of minibatches.

        Args:
            rollout: what the current policy did, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            Means over the minibatches, each [], and ``updates``, their number.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.device)
        advantage, target = self.estimate(rollout)
        quality = explained_variance(rollout.value, target)
        old_value = rollout.value  # which clipped values stay near, whatever is computed anew
        history = []
        for epoch in range(self.epochs):
            if epoch > 0 and self.recompute_advantage:
                value, next_value = self.value(rollout.obs), self.value(rollout.next_obs)
                rollout = replace(rollout, value=value, next_value=next_value)
                advantage, target = self.estimate(rollout)
            rows = minibatches(
                rollout.mask, size=self.minibatch_size, generator=self.streams.minibatch
            )
            obs, action, logp, value, advantages, targets = (
                column.flatten(0, 1)[rows]
                for column in (
                    rollout.obs,
                    rollout.action,
                    rollout.logp,
                    old_value,
                    advantage,
                    target,
                )
            )
            policy_metrics, critic_metrics = self.run_both(
                partial(
                    self.policy_learner.fit,
                    PolicyBatch(obs, action, logp, advantages),
                    learning_rate,
                ),
                partial(self.critic_learner.fit, CriticBatch(obs, value, targets), learning_rate),
            )
            history.append(policy_metrics | critic_metrics)
            # The policy has gone far enough from the one that collected the data.
            if (
                self.target_kl is not None
                and history[-1]["policy/kl"].mean() > 1.5 * self.target_kl
            ):
                break
        self._send_to_actor()
        means = {name: torch.cat([m[name] for m in history]).mean() for name in history[0]}
        return {
            **means,
            "value/explained_variance": quality,
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(len(history) * len(rows), device=self.device),
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: PolicyBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[min(ρ Â, clip(ρ, 1 ± ε) Â)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        surrogate = clipped_surrogate(log_ratio, advantage, self.clip).mean()
        entropy = distribution.entropy().mean()
        return -surrogate - self.entropy_coefficient * entropy, {
            "loss/policy": -surrogate,
            "policy/entropy": entropy,
            "policy/kl": approximate_kl(log_ratio),
            "policy/clip_fraction": clip_fraction(log_ratio, self.clip),
        }

    def critic_loss(
        self, critic: Callable[[Tensor], Tensor], batch: CriticBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(φ) = ½ E[(V(s) − target)²]."""
        value = critic(batch.obs)
        if self.value_clip is None:
            error = squared_value_error(value, batch.target)
        else:
            error = clipped_value_error(value, batch.value, batch.target, self.value_clip)
        return error.mean(), {"loss/value": error.mean()}

    def _send_to_actor(self) -> None:
        """Bring the copy that acts up to date."""
        if self.actor is not self.network:
            self.actor.load_state_dict(self.network.state_dict())

    # ------------------------------------------------------------------ saving

    def weights(self) -> dict[str, Tensor]:
        """Return the networks' weights by name."""
        return dict(self.network.state_dict())

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved weights."""
        self.network.load_state_dict(weights)
        self._send_to_actor()

    def state_dict(self) -> dict:
        """Return what the learners need besides the weights."""
        return {
            "policy": self.policy_learner.state_dict(),
            "critic": self.critic_learner.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.policy_learner.load_state_dict(state["policy"])
        self.critic_learner.load_state_dict(state["critic"])
