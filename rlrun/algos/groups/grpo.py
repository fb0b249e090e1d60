"""GRPO: group-relative policy optimisation.

Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language
Models" (arXiv:2402.03300), eq. 3. G episodes are played from one start; an episode's advantage is
its return minus the group's mean, over the group's standard deviation (``advantage=grpo``), the
same for all of its steps; no critic is learned. Several passes of minibatches of episodes descend

    L(θ) = −1/B Σ_i 1/|o_i| Σ_t { min(ρ_it Â_it, clip(ρ_it, 1 ± ε) Â_it) − β k3(π_θ, π_ref) }

with ρ_it = π_θ(a|s) / π_old(a|s) and B episodes of |o_i| steps. The clip bounds what one update
gains from moving away from π_old, the penalty how far all of them lead away from π_ref.

Departures: the return may be discounted (``gamma``); other estimators, aggregations and KL
penalties can be chosen; an entropy bonus; there is no reference policy unless one is given, and it
is replaced during a run only with ``kl.refresh_every``; the details of PPO in control (``ppo.py``):
orthogonal initialisation, normalised observations, Adam with ε = 1e-5, a falling step size, a
bounded gradient norm.
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
from rlrun.learning.losses.surrogates import clipped_surrogate
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class GRPO:
    """Hyperparameters (explained in ``conf/algo/grpo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)
    setup, update = episode_update.setup, episode_update.update

    num_envs: Count
    epochs: Count
    episodes_per_minibatch: Count
    clip: PositiveOrInfinite
    kl: ReferenceKL
    aggregation: Aggregation
    optimizer: Adam
    gamma: Fraction
    entropy_coefficient: NonNegative
    normalization: Normalization

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """L(θ) = −Σ w {min(ρ Â, clip(ρ, 1 ± ε) Â) + c H(π) − β k(π, π_ref)}."""
        steps = compare(policy, batch)
        surrogate = clipped_surrogate(steps.log_ratio, batch.advantage, self.clip)
        penalty = self.kl.in_loss(steps.reference_log_ratio)
        gain = surrogate + self.entropy_coefficient * steps.entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **step_metrics(steps, self.clip),
        }
