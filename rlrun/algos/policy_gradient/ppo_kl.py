"""Proximal policy optimisation with a KL penalty instead of a clipped objective.

Schulman, Wolski, Dhariwal, Radford & Klimov 2017, "Proximal Policy Optimization Algorithms", §4:
maximise ρ Â − β KL(π_old ‖ π_θ), with β fixed or adapted after each iteration, so that the KL
divergence stays near a target. The KL is exact: these distributions have a closed form.

Departures: the details that decide PPO's results (Huang et al. 2022, "The 37 implementation details
of PPO"), the same as in ``ppo.py``; an adapted β has a smallest and a largest value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, TypeVar

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
from rlrun.learning.kl import Coefficient, DoublingCoefficient, FixedCoefficient
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import USUAL_CLIP, explained_variance, ratio_metrics, summarize
from rlrun.learning.optimizers import Adam
from rlrun.learning.protocols import Stateful
from rlrun.learning.surrogates import standardize
from rlrun.models.agent import make_agent, refuse_second_ratio
from rlrun.models.distributions import Categorical, DiagonalGaussian

Distribution = TypeVar("Distribution", Categorical, DiagonalGaussian)


class PolicyBatch(NamedTuple):
    """B rows of a rollout for the policy.

    Attributes:
        obs: [B, D].
        action: [B] or [B, A].
        logp: log π_old(a|s), [B].
        advantage: Â, [B].
        old: parameters of π_old(·|s): logits [B, K], or mean and log σ [B, 2A].
        kl_coefficient: β, the same in every row, [B]: compiled code takes it as an input.
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor
    old: Tensor
    kl_coefficient: Tensor


@dataclass(kw_only=True, eq=False)
class PPOKL:
    """Hyperparameters (their meaning and source stand in ``conf/algo/ppo_kl.yaml``) and learners.

    Attributes:
        agent: policy and critic.
        learners: what fits them.
        parts: the coefficient of the penalty.
    """

    num_envs: int
    horizon: int | None
    epochs: int
    minibatch_size: int
    learning_rate: float
    anneal_learning_rate: bool
    adam_epsilon: float
    gamma: float
    kl_coefficient: float
    target_kl: float | None
    entropy_coefficient: float
    max_grad_norm: float
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
        positive_or_infinite(max_grad_norm=self.max_grad_norm)
        at_least(
            0, kl_coefficient=self.kl_coefficient, entropy_coefficient=self.entropy_coefficient
        )
        if self.target_kl is not None:
            positive(target_kl=self.target_kl)
            if self.kl_coefficient == 0:  # no factor leads away from zero
                raise ValueError(
                    "kl_coefficient must be positive to be adapted (target_kl=null: it stays as "
                    f"it is), got {self.kl_coefficient}"
                )
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
            algorithm="ppo_kl",
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
            self.agent, minibatches=count, optimizer=adam, max_grad_norm=self.max_grad_norm
        )
        self.coefficient: Coefficient
        if self.target_kl is None:
            self.coefficient = FixedCoefficient(self.kl_coefficient, device=self.agent.device)
        else:
            self.coefficient = DoublingCoefficient(
                self.kl_coefficient, target=self.target_kl, device=self.agent.device
            )
        self.learners = {"policy": self.policy_learner, "critics": self.critics}
        self.parts: dict[str, Stateful] = {"kl_coefficient": self.coefficient}
        self.run_both = hardware.run_both
        if compiled:
            obs, action, zeros = self.agent.example(self.minibatch_size)
            old = self.agent.policy(obs).parameters
            example = PolicyBatch(obs, action, zeros, zeros, old, zeros)
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
            What the losses log, of all minibatches, each [], the KL after the last of them, the β
            of them all, and ``updates``, their number.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.agent.device)
        advantage, target = self.estimate(rollout)
        quality = explained_variance(rollout, target)
        kl_coefficient = self.coefficient.value
        old = self.agent.policy(rollout.obs).parameters
        history = []
        for epoch in range(self.epochs):
            if epoch > 0 and self.recompute_advantage:
                advantage, target = self.estimate(self.agent.judge(rollout))
            rows = minibatches(
                rollout.mask, size=self.minibatch_size, generator=self.streams.minibatch
            )
            columns = (rollout.obs, rollout.action, rollout.logp, advantage, old)
            batches = PolicyBatch(*take(rows, *columns, kl_coefficient.expand_as(advantage)))
            policy_metrics, critic_metrics = self.run_both(
                partial(self.policy_learner.fit, batches, learning_rate),
                partial(self.critics.fit, critic_batches(rollout, target, rows), learning_rate),
                compiled=self.policy_learner.is_compiled,
            )
            history.append(policy_metrics | critic_metrics)
        new = self.agent.policy(rollout.obs)
        kl = new.with_parameters(old).kl(new)[rollout.mask].mean()
        self.coefficient.update(kl, samples=int(rollout.mask.sum()))
        return {
            **summarize(history),
            **quality,
            "policy/kl": kl,
            "schedule/kl_coefficient": kl_coefficient,
            "schedule/learning_rate": learning_rate,
            "updates": torch.tensor(len(history) * len(rows)),
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Distribution], batch: PolicyBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[ρ Â] + β E[KL(π_old ‖ π_θ)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        surrogate = (log_ratio.exp() * advantage).mean()
        kl = distribution.with_parameters(batch.old).kl(distribution)
        entropy = distribution.entropy().mean()
        loss = -surrogate + (batch.kl_coefficient * kl).mean() - self.entropy_coefficient * entropy
        return loss, {
            "loss/policy": -surrogate,
            "policy/entropy": entropy,
            **ratio_metrics(log_ratio, USUAL_CLIP),
        }
