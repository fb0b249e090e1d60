"""GSPO: group sequence policy optimisation.

Zheng et al. 2025, "Group Sequence Policy Optimization" (arXiv:2507.18071), eq. 5 to 7. As in GRPO,
an episode's advantage is its return minus the mean of its group, over the group's standard
deviation (``advantage=grpo``). Unlike there, ratio and clip are of a whole episode, the geometric
mean of its steps' ratios, so that an episode is kept or clipped as a whole:

    L(θ) = −1/B Σ_i min(s_i A_i, clip(s_i, 1 − ε_low, 1 + ε_high) A_i)
    s_i = exp( 1/|o_i| Σ_t log π_θ(a|s) / π_old(a|s) )

with B episodes of |o_i| steps.

Departures: the paper clips at 3e-4 and 4e-4, which suits answers of thousands of tokens and tiny
step sizes; see the YAML for the values here. Each step has the ratio of its episode and the
gradient of its own ("GSPO-token", §4.3), which is the same loss and the same gradient for the
paper's advantages and allows ones that differ between steps. log s_i is kept within ±20. A KL
penalty is possible (``reference_penalty.py``). The return may be discounted; an entropy bonus; the
details of PPO in control (``ppo.py``): orthogonal initialisation, normalised observations,
Adam with ε = 1e-5, a falling step size, a bounded gradient norm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import POLICY_COLUMNS, Estimator
from rlrun.algos.contract import check_rollout_settings
from rlrun.algos.groups.episode_update import check_episode_settings, fit_epochs, longest_episode
from rlrun.collectors.contract import Collector
from rlrun.config.types import positive_or_infinite
from rlrun.data.groups import spread_metrics
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.aggregation import Aggregation, step_weights
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import policy_metrics
from rlrun.learning.optimizers import Adam
from rlrun.learning.reference_penalty import (
    KLEstimator,
    KLPlace,
    PenalisedBatch,
    ReferencePenalty,
    check_reference_settings,
    penalised_batches,
    warn_of_the_spread,
)
from rlrun.learning.surrogates import bounded, clipped_surrogate, of_each_step
from rlrun.models.agent import make_agent
from rlrun.models.distributions import Categorical, DiagonalGaussian


@dataclass(kw_only=True, eq=False)
class GSPO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/gspo.yaml``) and the learner.

    Attributes:
        agent: the policy.
        learners: what fits it.
        parts: what else decides the future.
    """

    num_envs: int
    horizon: int | None
    epochs: int
    episodes_per_minibatch: int
    learning_rate: float
    anneal_learning_rate: bool
    adam_epsilon: float
    gamma: float
    clip_low: float
    clip_high: float
    aggregation: Aggregation
    entropy_coefficient: float
    max_grad_norm: float
    reference: str | None
    kl_estimator: KLEstimator
    kl_place: KLPlace
    kl_coefficient: float
    kl_target: float | None
    kl_horizon: int
    normalize_observation: bool
    normalize_reward: bool
    normalizer_clip: float
    hidden_sizes: list[int]
    log_std: float

    loop: ClassVar = staticmethod(loops.on_policy)

    def __post_init__(self):
        """Refuse values outside their range."""
        check_rollout_settings(self)
        check_episode_settings(self)
        check_reference_settings(self)
        positive_or_infinite(clip_low=self.clip_low, clip_high=self.clip_high)

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
        """Build the policy and what fits it (see ``rlrun/algos/contract.py``).

        Nothing is compiled: the number of steps differs from rollout to rollout.
        """
        self.longest = longest_episode(problem, self, name="gspo")
        self.group_size = problem.group_size
        self.streams = streams
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="gspo",
            estimator=estimator,
            offers=POLICY_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        if not from_checkpoint:
            warn_of_the_spread(self)
        self.penalty = ReferencePenalty(self, problem, self.agent, from_checkpoint=from_checkpoint)
        self.policy_learner = Learner(
            self.agent.policy,
            self.policy_loss,
            minibatches=self.num_envs // self.episodes_per_minibatch,
            optimizer=Adam(epsilon=self.adam_epsilon),
            max_grad_norm=self.max_grad_norm,
        )
        self.learners = {"policy": self.policy_learner}
        self.parts = self.penalty.parts

    def updates(self, total_steps: int) -> int:
        """Return 0: there is nothing to compile."""
        return 0

    def collect(self, collector: Collector) -> Rollout:
        """Return groups of episodes of the current policy."""
        return collector.collect(self.agent)

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Improve the policy on groups of episodes, for several epochs of minibatches of them.

        Args:
            rollout: whole episodes of the current policy, [T, N].
            progress: share of the run's steps done before this update, for the schedule.

        Returns:
            Means over the minibatches, each [], and ``updates``, their number.
        """
        decay = 1.0 - progress if self.anneal_learning_rate else 1.0
        learning_rate = torch.tensor(self.learning_rate * decay, device=self.agent.device)
        penalised = self.penalty(rollout)
        advantage, _ = self.estimate(penalised.rollout)
        weight = step_weights(rollout.mask, self.aggregation, longest=self.longest)
        metrics = fit_epochs(
            self.policy_learner,
            partial(penalised_batches, penalised, advantage, weight),
            rollout.mask,
            epochs=self.epochs,
            size=self.episodes_per_minibatch,
            learning_rate=learning_rate,
            generator=self.streams.minibatch,
        )
        return {
            **metrics,
            **spread_metrics(rollout, self.group_size),
            **penalised.metrics,
            "schedule/learning_rate": learning_rate,
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: PenalisedBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −Σ w {min(s_i Â, clip(s_i, 1 − ε_low, 1 + ε_high) Â) + c H(π) − β k(π, π_ref)}."""
        distribution, counts = policy(batch.obs), batch.weight > 0
        logp, entropy = distribution.log_prob(batch.action), distribution.entropy()
        log_ratio = torch.where(counts, logp - batch.logp, 0.0)  # of each step, [T, n]
        episode = bounded(log_ratio.sum(0) / counts.sum(0))  # log s_i, [n]
        surrogate = clipped_surrogate(
            of_each_step(episode, log_ratio), batch.advantage, self.clip_low, self.clip_high
        )
        penalty = self.penalty.in_loss(torch.where(counts, logp - batch.reference_logp, 0.0))
        gain = surrogate + self.entropy_coefficient * entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **policy_metrics(
                log_ratio[counts],
                entropy[counts],
                ratio=episode,
                clip=self.clip_low,
                clip_high=self.clip_high,
            ),
        }
