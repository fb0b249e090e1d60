"""RLOO: REINFORCE with the returns of the group's other members as baseline.

Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from
Human Feedback in LLMs" (arXiv:2402.14740), eq. 8; Kool et al. 2019. G episodes are played from one
start, and an episode is one action: its advantage A_i is its return minus the mean return of the
others (``advantage=rloo``), its probability the product of its steps'. Minibatches of B episodes
descend

    L(θ) = −1/B Σ_i min(ρ_i A_i, clip(ρ_i, 1 ± ε) A_i),   ρ_i = exp Σ_t log π_θ(a|s) / π_old(a|s)

which is the policy gradient itself while π_θ = π_old: with one epoch and one minibatch, always. The
KL to a reference policy is taken from the rewards (k1, ``reference_penalty.py``), as in the paper.

Departures: the paper takes one step a batch and has no ratio; ratio and clip are those of TRL's
RLOOTrainer. log ρ_i is kept within ±20, since a product over hundreds of steps may overflow.
Each step has the ratio of its episode and the gradient of its own, which gives the same gradient
and allows advantages that differ between steps; the value that is logged is |o_i| times as large.
The return may be discounted; an entropy bonus; the details of PPO in control (``ppo.py``):
orthogonal initialisation, normalised observations, Adam with ε = 1e-5, a falling step size, a
bounded gradient norm.
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
)
from rlrun.learning.surrogates import bounded, clipped_surrogate, of_each_step
from rlrun.models.agent import make_agent
from rlrun.models.distributions import Categorical, DiagonalGaussian


@dataclass(kw_only=True, eq=False)
class RLOO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/rloo.yaml``) and the learner.

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
    clip: float
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
        positive_or_infinite(clip=self.clip)

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
        self.longest = longest_episode(problem, self, name="rloo")
        self.group_size = problem.group_size
        self.streams = streams
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="rloo",
            estimator=estimator,
            offers=POLICY_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
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
        """L(θ) = −Σ w {min(ρ_i Â, clip(ρ_i, 1 ± ε) Â) + c H(π) − β k(π, π_ref)}."""
        distribution, counts = policy(batch.obs), batch.weight > 0
        logp, entropy = distribution.log_prob(batch.action), distribution.entropy()
        log_ratio = torch.where(counts, logp - batch.logp, 0.0)  # of each step, [T, n]
        episode = bounded(log_ratio.sum(0))  # log ρ_i, [n]
        surrogate = clipped_surrogate(of_each_step(episode, log_ratio), batch.advantage, self.clip)
        penalty = self.penalty.in_loss(torch.where(counts, logp - batch.reference_logp, 0.0))
        gain = surrogate + self.entropy_coefficient * entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **policy_metrics(
                log_ratio[counts],
                entropy[counts],
                ratio=episode,
                clip=self.clip,
                clip_high=self.clip,
            ),
        }
