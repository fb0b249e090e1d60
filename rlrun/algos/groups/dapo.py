"""DAPO: decoupled clip and dynamic sampling policy optimisation.

Yu et al. 2025, "DAPO: An Open-Source LLM Reinforcement Learning System at Scale"
(arXiv:2503.14476), eq. 8 to 13. GRPO with four changes:

- clip-higher (§3.1): the band of ratios reaches further up than down, so that unlikely actions can
  become likely,
- dynamic sampling (§3.2): a group whose returns are all equal has no gradient; it is dropped, and
  more groups are played until the batch is full,
- a loss in which every step counts alike (§3.3), however long its episode,
- a soft penalty for overlong episodes (§3.4), here an option,

and no KL penalty (§2.3):

    L(θ) = −1/Σ_i |o_i| Σ_i Σ_t min(ρ_it Â_it, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_it)

with ρ_it = π_θ(a|s) / π_old(a|s) and episodes of |o_i| steps.

A group is dropped without a loss only where equal returns mean no gradient: with an estimator that
compares its members, and, as the raw return is not discounted, exactly only with ``gamma=1``.
Others (``advantage=total_return``) are biased by it.

Departures: refilling ends after ``max_refills`` more collections, and the update then goes on with
fewer episodes, or is skipped if there are none: steps of an environment are to be had for ever, but
not a difference between episodes, least of all where a task is solved. Equal is a spread of raw
returns up to ``spread_tolerance``. Where the paper limits an answer's tokens, the penalty is for
steps near the time limit, and only makes sense where longer is not better. The return may be
discounted, but the penalty is not: each return has it in full, from the first step on (``grpo``)
as from any other (``time_group``). An entropy bonus; the details of PPO in control
(``ppo.py``): orthogonal initialisation, normalised observations, Adam with ε = 1e-5, a
falling step size, a bounded gradient norm.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import POLICY_COLUMNS, Estimator
from rlrun.algos.contract import check_rollout_settings
from rlrun.algos.groups.episode_update import (
    EpisodeBatch,
    check_episode_settings,
    fit_epochs,
    longest_episode,
)
from rlrun.collectors.contract import Collector
from rlrun.config.types import at_least, positive_or_infinite
from rlrun.data.groups import join, return_spreads, take_columns
from rlrun.data.minibatches import take_episodes
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.errors import UserError, warn
from rlrun.hardware.spec import Hardware
from rlrun.learning.aggregation import Aggregation, minibatch_weights, step_weights
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import policy_metrics
from rlrun.learning.optimizers import Adam
from rlrun.learning.protocols import Stateful
from rlrun.learning.surrogates import clipped_surrogate
from rlrun.models.agent import make_agent
from rlrun.models.distributions import Categorical, DiagonalGaussian

# Iterations in a row without an update after which a run says so.
MANY_SKIPPED = 10


@dataclass(kw_only=True, eq=False)
class DAPO:
    """Hyperparameters (their meaning and source stand in ``conf/algo/dapo.yaml``) and the learner.

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
    max_refills: int
    spread_tolerance: float
    overlong_buffer: int | None
    overlong_penalty: float
    aggregation: Aggregation
    entropy_coefficient: float
    max_grad_norm: float
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
        positive_or_infinite(clip_low=self.clip_low, clip_high=self.clip_high)
        at_least(
            0,
            max_refills=self.max_refills,
            spread_tolerance=self.spread_tolerance,
            overlong_penalty=self.overlong_penalty,
        )
        if self.overlong_buffer is not None:
            at_least(1, overlong_buffer=self.overlong_buffer)

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
        self.longest = longest_episode(problem, self, name="dapo")
        if problem.group_size is None or problem.group_size < 2:
            raise UserError("dapo drops groups without a spread: env.group_size=8, say")
        if self.overlong_buffer is not None and self.overlong_buffer > self.longest:
            raise UserError(
                f"algo.overlong_buffer={self.overlong_buffer} is longer than an episode, which "
                f"may last {self.longest} steps"
            )
        self.group_size = problem.group_size
        # What `collect` has to say of a rollout besides, for the logs.
        self.sampling: dict[str, int] = {}
        # Iterations in a row without an update.
        self.skipped = 0
        self.streams = streams
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="dapo",
            estimator=estimator,
            offers=POLICY_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        self.policy_learner = Learner(
            self.agent.policy,
            self.policy_loss,
            minibatches=self.num_envs // self.episodes_per_minibatch,
            optimizer=Adam(epsilon=self.adam_epsilon),
            max_grad_norm=self.max_grad_norm,
        )
        self.learners = {"policy": self.policy_learner}
        self.parts: dict[str, Stateful] = {}

    def updates(self, total_steps: int) -> int:
        """Return 0: there is nothing to compile."""
        return 0

    def collect(self, collector: Collector) -> Rollout:
        """Return ``num_envs`` episodes of groups with a spread, or as many as there are.

        Each call of the collector plays ``num_envs`` episodes; all their steps count as the run's.
        """
        kept: list[Rollout] = []
        missing, dropped = self.num_envs, 0
        while missing > 0 and len(kept) <= self.max_refills:
            rollout = collector.collect(self.agent)
            has_spread = return_spreads(rollout, self.group_size) > self.spread_tolerance
            members = has_spread.repeat_interleave(self.group_size).nonzero().squeeze(-1)
            kept.append(take_columns(rollout, members[:missing]))
            missing -= len(members)
            dropped += int((~has_spread).sum())
        self.sampling = {"groups/dropped": dropped, "groups/refills": len(kept) - 1}
        return join(kept)

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
        sampling = {
            name: torch.tensor(count, device=self.agent.device)
            for name, count in self.sampling.items()
        }
        if not rollout.mask.any():
            self.skipped += 1
            if self.skipped == MANY_SKIPPED:
                warn(
                    f"dapo has learned nothing in {MANY_SKIPPED} iterations in a row: the returns "
                    "of each group are equal, the task being solved or out of reach"
                )
            return {**sampling, "updates": torch.tensor(0)}
        self.skipped = 0
        advantage, _ = self.estimate(self.shaped(rollout))
        weight = step_weights(rollout.mask, self.aggregation, longest=self.longest)

        def batches(episodes: Tensor) -> EpisodeBatch:
            weights = minibatch_weights(weight, size=episodes.shape[1])
            columns = (rollout.obs, rollout.action, rollout.logp, advantage, weights)
            return EpisodeBatch(*take_episodes(episodes, *columns))

        metrics = fit_epochs(
            self.policy_learner,
            batches,
            rollout.mask,
            epochs=self.epochs,
            size=self.episodes_per_minibatch,
            learning_rate=learning_rate,
            generator=self.streams.minibatch,
        )
        return {**metrics, **sampling, "schedule/learning_rate": learning_rate}

    def shaped(self, rollout: Rollout) -> Rollout:
        """Fine overlong episodes, so that the fine is in each return of theirs in full, [T, N].

        1 − γ of the fine at every step, and all of it at the last: discounted from step t on, n
        steps before the last, (1 − γ)(1 + γ + … + γⁿ⁻¹) + γⁿ = 1. Without a discount it is all at
        the last step, as in the paper; a discounted one there would not reach the first steps.
        """
        if self.overlong_buffer is None:
            return rollout
        penalty = overlong_penalties(
            rollout.mask.sum(0),
            longest=self.longest,
            buffer=self.overlong_buffer,
            factor=self.overlong_penalty,
        )
        share = torch.where(rollout.done, 1.0, (1.0 - self.gamma) * rollout.mask)
        return replace(rollout, reward=rollout.reward + share * penalty)

    def policy_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: EpisodeBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −Σ w {min(ρ Â, clip(ρ, 1 − ε_low, 1 + ε_high) Â) + c H(π)}."""
        distribution, counts = policy(batch.obs), batch.weight > 0
        logp, entropy = distribution.log_prob(batch.action), distribution.entropy()
        log_ratio = torch.where(counts, logp - batch.logp, 0.0)  # log ρ_it, [T, n]
        surrogate = clipped_surrogate(log_ratio, batch.advantage, self.clip_low, self.clip_high)
        gain = surrogate + self.entropy_coefficient * entropy
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **policy_metrics(
                log_ratio[counts],
                entropy[counts],
                ratio=log_ratio[counts],
                clip=self.clip_low,
                clip_high=self.clip_high,
            ),
        }


def overlong_penalties(lengths: Tensor, *, longest: int, buffer: int, factor: float) -> Tensor:
    """Return what episodes are fined that end near the time limit, [N].

    min(0, −f (|o_i| − (L − B)) / B): nothing up to B steps before the limit L, from there on more
    with every step, and f at the limit (Yu et al. 2025, eq. 13).

    Args:
        lengths: |o_i|, steps, [N].
        longest: L, steps.
        buffer: B, steps.
        factor: f, in units of the reward.
    """
    return (-factor * (lengths - (longest - buffer)) / buffer).clamp_max(0.0)
