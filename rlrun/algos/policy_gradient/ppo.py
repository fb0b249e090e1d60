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
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import ACTOR_CRITIC_COLUMNS, Estimator
from rlrun.algos.contract import check_minibatch_size, check_rollout_settings
from rlrun.collectors.contract import Collector
from rlrun.config.types import at_least, positive, positive_or_infinite
from rlrun.data.minibatches import minibatches, take
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.kl import approximate_kl
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import explained_variance, ratio_metrics, summarize
from rlrun.learning.optimizers import Adam
from rlrun.learning.protocols import Stateful
from rlrun.learning.surrogates import clipped_surrogate, standardize
from rlrun.models.agent import make_agent, refuse_second_ratio
from rlrun.models.distributions import Categorical, DiagonalGaussian


class PolicyBatch(NamedTuple):
    """B rows of a rollout for the policy: [B, D], [B] or [B, A], [B], [B]."""

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor


@dataclass(kw_only=True, eq=False)
class PPO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/ppo.yaml``) and the learners.

    Attributes:
        agent: policy and critic.
        learners: what fits them.
        parts: what else decides the future.
    """

    num_envs: int
    horizon: int | None
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
        check_rollout_settings(self)
        at_least(1, epochs=self.epochs, minibatch_size=self.minibatch_size)
        positive(
            learning_rate=self.learning_rate,
            adam_epsilon=self.adam_epsilon,
        )
        positive_or_infinite(clip=self.clip, max_grad_norm=self.max_grad_norm)
        at_least(0, entropy_coefficient=self.entropy_coefficient)
        for name, value in (("value_clip", self.value_clip), ("target_kl", self.target_kl)):
            if value is not None:
                positive(**{name: value})
        check_minibatch_size(self, self.minibatch_size)
        if self.normalize_advantage and self.minibatch_size == 1:
            raise ValueError("minibatch_size must be at least 2 to normalize_advantage, got 1")

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
            algorithm="ppo",
            estimator=estimator,
            offers=ACTOR_CRITIC_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        if self.recompute_advantage:
            refuse_second_ratio(self.agent)
        rows = problem.rollout_length(self.horizon, self.num_envs) * self.num_envs
        count, adam = max(rows // self.minibatch_size, 1), Adam(epsilon=self.adam_epsilon)
        self.policy_learner = Learner(
            self.agent.policy,
            self.policy_loss,
            minibatches=count,
            optimizer=adam,
            max_grad_norm=self.max_grad_norm,
        )
        self.critics = Critics(
            self.agent,
            minibatches=count,
            optimizer=adam,
            max_grad_norm=self.max_grad_norm,
            value_clip=self.value_clip,
        )
        self.learners = {"policy": self.policy_learner, "critics": self.critics}
        self.parts: dict[str, Stateful] = {}
        self.run_both = hardware.run_both
        if compiled:
            obs, action, zeros = self.agent.example(self.minibatch_size)
            example = PolicyBatch(obs, action, zeros, zeros)
            self.policy_learner.compile(hardware.compiled, example)
            self.critics.compile(hardware, CriticBatch(obs, action, zeros, zeros))

    def updates(self, total_steps: int) -> int:
        """Return how many minibatch updates a run of ``total_steps`` takes."""
        return total_steps * self.epochs // self.minibatch_size

    def collect(self, collector: Collector) -> Rollout:
        """Return what the current policy does."""
        return collector.collect(self.agent)

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Improve policy and critic on one rollout, for several epochs of minibatches.

        Args:
            rollout: what the current policy did, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            What the losses log, of all minibatches, each [], and ``updates``, their number.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.agent.device)
        advantage, target = self.estimate(rollout)
        quality = explained_variance(rollout, target)
        history = []
        for epoch in range(self.epochs):
            if epoch > 0 and self.recompute_advantage:
                advantage, target = self.estimate(self.agent.judge(rollout))
            rows = minibatches(
                rollout.mask, size=self.minibatch_size, generator=self.streams.minibatch
            )
            batches = PolicyBatch(*take(rows, rollout.obs, rollout.action, rollout.logp, advantage))
            policy_metrics, critic_metrics = self.run_both(
                partial(self.policy_learner.fit, batches, learning_rate),
                partial(self.critics.fit, critic_batches(rollout, target, rows), learning_rate),
                compiled=self.policy_learner.is_compiled,
            )
            history.append(policy_metrics | critic_metrics)
            # The policy has gone far enough from the one that collected the data.
            if (
                self.target_kl is not None
                and history[-1]["policy/kl"].mean() > 1.5 * self.target_kl
            ):
                break
        return {
            **summarize(history),
            **quality,
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(len(history) * len(rows)),
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: PolicyBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[min(ρ Â, clip(ρ, 1 ± ε) Â)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        surrogate = clipped_surrogate(log_ratio, advantage, self.clip).mean()
        entropy = distribution.entropy().mean()
        return -surrogate - self.entropy_coefficient * entropy, {
            "loss/policy": -surrogate,
            "policy/entropy": entropy,
            "policy/kl": approximate_kl(log_ratio),
            **ratio_metrics(log_ratio, self.clip),
        }
