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
penalty is possible (``reference_kl.py``). The return may be discounted; an entropy bonus; the
details of PPO in control (``ppo.py``): orthogonal initialisation, normalised observations,
Adam with ε = 1e-5, a falling step size, a bounded gradient norm.
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.groups import episode_update
from rlrun.algos.groups.episode_update import EpisodeBatch, compare, step_metrics
from rlrun.config.types import Count, Fraction, NonNegative, PositiveOrInfinite
from rlrun.data.normalize import Normalization
from rlrun.learning.contract import LossAndMetrics, PolicyFunction
from rlrun.learning.losses.aggregation import Aggregation
from rlrun.learning.losses.reference_kl import ReferenceKL
from rlrun.learning.losses.surrogates import bounded, clipped_surrogate, of_each_step
from rlrun.learning.metrics import ratio_metrics
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class GSPO:
    """Hyperparameters (explained in ``conf/algo/gspo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)
    setup, update = episode_update.setup, episode_update.update

    num_envs: Count
    clip_low: PositiveOrInfinite
    clip_high: PositiveOrInfinite
    aggregation: Aggregation
    gamma: Fraction
    epochs: Count
    episodes_per_minibatch: Count
    kl: ReferenceKL
    optimizer: Adam
    entropy_coefficient: NonNegative
    normalization: Normalization

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """L(θ) = −Σ w {min(s_i Â, clip(s_i, 1 − ε_low, 1 + ε_high) Â) + c H(π) − β k(π, π_ref)}."""
        steps = compare(policy, batch)
        episode = bounded(steps.log_ratio.sum(0) / steps.counts.sum(0))  # log s_i, [n]
        surrogate = clipped_surrogate(
            of_each_step(episode, steps.log_ratio), batch.advantage, self.clip_low, self.clip_high
        )
        penalty = self.kl.in_loss(steps.reference_log_ratio)
        gain = surrogate + self.entropy_coefficient * steps.entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **step_metrics(steps, self.clip_low),
            **ratio_metrics(episode, self.clip_low, self.clip_high),
        }
