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

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.groups.episode_update import EpisodeBatch, EpisodeUpdate, compare, step_metrics
from rlrun.config.types import Count, Fraction, NonNegative, PositiveOrInfinite
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Rollout, Transitions
from rlrun.errors import UserError
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.aggregation import Aggregation
from rlrun.learning.losses.surrogates import clipped_surrogate
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class DAPO:
    """Hyperparameters (explained in ``conf/algo/dapo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    clip_low: PositiveOrInfinite
    clip_high: PositiveOrInfinite
    aggregation: Aggregation
    overlong_buffer: Count | None
    overlong_penalty: NonNegative
    epochs: Count
    episodes_per_minibatch: Count
    optimizer: Adam
    gamma: Fraction
    entropy_coefficient: NonNegative
    normalization: Normalization

    def setup(self, context: Context) -> None:
        """Build the policy and what fits it (see ``algos/contract.py``)."""
        self.longest = context.shape.longest
        if self.overlong_buffer is not None and self.overlong_buffer > self.longest:
            raise UserError(
                f"algo.overlong_buffer={self.overlong_buffer} is longer than an episode, which "
                f"may last {self.longest} steps"
            )
        self.body = EpisodeUpdate(context, self)
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Improve the policy on groups of episodes (see ``algos/contract.py``)."""
        return self.body.update(self.shaped(self.agent.rollout(transitions)), progress)

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

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """L(θ) = −Σ w {min(ρ Â, clip(ρ, 1 − ε_low, 1 + ε_high) Â) + c H(π)}."""
        steps = compare(policy, batch)
        surrogate = clipped_surrogate(
            steps.log_ratio, batch.advantage, self.clip_low, self.clip_high
        )
        gain = surrogate + self.entropy_coefficient * steps.entropy
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **step_metrics(steps, self.clip_low, self.clip_high),
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
