"""Proximal policy optimisation with the clipped objective.

Schulman, Wolski, Dhariwal, Radford & Klimov 2017, "Proximal Policy Optimization Algorithms",
eq. 7, with the details that decide its results (Huang et al. 2022, "The 37 implementation details
of PPO"): orthogonal initialisation, Adam with ε = 1e-5, a learning rate that falls to zero,
normalised observations and rewards, advantages normalised per minibatch, gradients clipped.

Departures from Huang et al.: policy and critic are bootstrapped at truncation; observation
statistics are fixed during an iteration; the value loss is not clipped unless asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from rlrun import loops
from rlrun.errors import UserError
from rlrun.hardware import Hardware
from rlrun.networks import ActorCritic, FlatParameters
from rlrun.objectives import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    clipped_value_error,
    explained_variance,
    squared_value_error,
)
from rlrun.optim import AdamState, adam, clip_by_norm
from rlrun.ranges import at_least, between, positive
from rlrun.rollout import Rollout, minibatches
from rlrun.seeding import Streams

# Minibatch updates in one compiled call: the cost of a call is shared, the time to compile grows.
UPDATES_PER_CALL = 8


class Minibatch(NamedTuple):
    """B rows of a rollout: [B, D], [B] or [B, A], and four times [B]."""

    obs: Tensor
    action: Tensor
    logp: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor


@dataclass(kw_only=True, eq=False)
class PPO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/ppo.yaml``) and the learner.

    Attributes:
        network: policy and critic; its parameters are views of one vector θ.
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
    value_coefficient: float
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
        at_least(
            0,
            value_coefficient=self.value_coefficient,
            entropy_coefficient=self.entropy_coefficient,
        )
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
            UserError: there is no estimator.
        """
        if estimator is None:
            raise UserError("ppo needs an estimator: advantage=gae, say")
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
        self.parameters = FlatParameters(self.network)
        self.adam = AdamState.zeros_like(self.parameters.vector)
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
        self.updates_per_call = max(n for n in range(1, UPDATES_PER_CALL + 1) if count % n == 0)
        self.take_steps = hardware.compiled(self._take_steps) if compiled else self._take_steps
        # What one sampled action looks like: int64 [] or float32 [A].
        action = self.network.policy(torch.zeros(obs_size, device=self.device)).mode()
        shape = (self.updates_per_call, self.minibatch_size)
        # One tensor each: compiled code is specialised to which of its inputs share memory.
        logp, value, advantage, target = (torch.zeros(shape, device=self.device) for _ in range(4))
        self.example = Minibatch(
            obs=torch.zeros(*shape, obs_size, device=self.device),
            action=torch.zeros((*shape, *action.shape), dtype=action.dtype, device=self.device),
            logp=logp,
            value=value,
            advantage=advantage,
            target=target,
        )

    def updates(self, total_steps: int) -> int:
        """Return how many minibatch updates a run of ``total_steps`` takes."""
        return total_steps * self.epochs // self.minibatch_size

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile the update by running it on zeros; nothing is learned."""
        zero = torch.zeros((), device=self.device)
        self.take_steps(self.parameters.vector, self.adam, zero, self.example)

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
        return self.network.value(obs)

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
        theta, state = self.parameters.vector, self.adam
        advantage, target = self.estimate(rollout)
        quality = explained_variance(rollout.value, target)
        history = []
        for epoch in range(self.epochs):
            if epoch > 0 and self.recompute_advantage:
                self.parameters.vector.copy_(theta)
                value, next_value = self.value(rollout.obs), self.value(rollout.next_obs)
                rollout = replace(rollout, value=value, next_value=next_value)
                advantage, target = self.estimate(rollout)
            rows = minibatches(
                rollout.mask, size=self.minibatch_size, generator=self.streams.minibatch
            )
            columns = (rollout.obs, rollout.action, rollout.logp, rollout.value, advantage, target)
            epoch_data = Minibatch(*(column.flatten(0, 1)[rows] for column in columns))
            for start in range(0, len(rows), self.updates_per_call):
                several = (x[start : start + self.updates_per_call] for x in epoch_data)
                theta, state, metrics = self.take_steps(
                    theta, state, learning_rate, Minibatch(*several)
                )
                history.append(metrics)
            # The policy has gone far enough from the one that collected the data.
            if self.target_kl is not None:
                calls = len(rows) // self.updates_per_call
                kl = torch.cat([m["policy/kl"] for m in history[-calls:]]).mean()
                if kl > 1.5 * self.target_kl:
                    break
        self.parameters.vector.copy_(theta)
        self.adam = state
        self._send_to_actor()
        means = {name: torch.cat([m[name] for m in history]).mean() for name in history[0]}
        return {
            **means,
            "value/explained_variance": quality,
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(len(history) * self.updates_per_call, device=self.device),
        }

    def _take_steps(
        self, theta: Tensor, state: AdamState, learning_rate: Tensor, batches: Minibatch
    ) -> tuple[Tensor, AdamState, dict[str, Tensor]]:
        """Take one optimiser step on each of K minibatches [K, B, ...]; metrics are [K]."""
        history = []
        for k in range(len(batches.obs)):
            batch = Minibatch(*(x[k] for x in batches))
            gradient, (loss, metrics) = grad_and_value(self._loss, has_aux=True)(theta, batch)
            gradient = clip_by_norm(gradient, self.max_grad_norm)
            theta, state = adam(
                theta, gradient, state, learning_rate=learning_rate, epsilon=self.adam_epsilon
            )
            history.append({"loss/total": loss, **metrics})
        return theta, state, {name: torch.stack([m[name] for m in history]) for name in history[0]}

    def _loss(self, theta: Tensor, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """L = −E[min(ρ Â, clip(ρ) Â)] + c_v · ½ E[(V − target)²] − c_e · E[H(π)]."""
        parameters = self.parameters.unflatten(theta)
        distribution, value = functional_call(self.network, parameters, (batch.obs,))
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ

        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -clipped_surrogate(log_ratio, advantage, self.clip).mean()

        if self.value_clip is None:
            value_error = squared_value_error(value, batch.target)
        else:
            value_error = clipped_value_error(value, batch.value, batch.target, self.value_clip)
        value_loss = value_error.mean()

        entropy = distribution.entropy().mean()
        loss = (
            policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient * entropy
        )
        return loss, {
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            "policy/kl": approximate_kl(log_ratio),
            "policy/clip_fraction": clip_fraction(log_ratio, self.clip),
        }

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
        """Return what the learner needs besides its weights."""
        return {"adam": tuple(self.adam)}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.adam = AdamState(*(tensor.to(self.device) for tensor in state["adam"]))
